(* SPDX-License-Identifier: Apache-2.0 *)
type t = Leaf | Node of t * int * t
let rec ins x = function Leaf -> Node (Leaf, x, Leaf) | Node (l, v, r) as n -> if x < v then Node (ins x l, v, r) else if x > v then Node (l, v, ins x r) else n
let rec size = function Leaf -> 0 | Node (l, _, r) -> size l + 1 + size r
let rec deep n = if n = 0 then 0 else 1 + deep (n - 1)
let () =
  let t = ref Leaf in
  for i = 0 to 200000 do t := ins (i * 7919 mod 100003) !t done;
  Printf.printf "%d\n" (size !t);
  let r = ref 0 in
  for i = 0 to 100000 do try if i mod 3 = 0 then raise Not_found else incr r with Not_found -> decr r done;
  Printf.printf "%d\n" !r;
  (try Printf.printf "%d\n" (deep 100_000_000) with Stack_overflow -> print_endline "overflow");
  Sys.set_signal Sys.sigusr1 (Sys.Signal_handle (fun _ -> print_endline "usr1"));
  Unix.kill (Unix.getpid ()) Sys.sigusr1;
  for _ = 0 to 3 do Gc.compact () done;
  flush stdout;
  (match Unix.fork () with 0 -> print_endline "child"; exit 0 | p -> ignore (Unix.waitpid [] p));
  print_endline (try string_of_int (Array.get [|1|] 5) with Invalid_argument m -> m);
  failwith "end"
