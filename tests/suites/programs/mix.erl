% SPDX-License-Identifier: Apache-2.0
-module(mix). -export([main/0]).
fib(N) when N < 2 -> N; fib(N) -> fib(N-1) + fib(N-2).
main() ->
  S = self(), Ps = [spawn(fun() -> S ! {self(), fib(I rem 20)} end) || I <- lists:seq(1, 500)],
  R = [receive {P, V} -> V end || P <- Ps], io:format("~p~n", [lists:sum(R)]),
  io:format("~p~n", [catch 1/length([])]), T = ets:new(t, []), [ets:insert(T, {I, I*I}) || I <- lists:seq(1,20000)], io:format("~p~n", [ets:lookup(T, 777)]),
  io:format("~s", [os:cmd("echo child")]), io:format("~p~n", [erlang:crc32(<<0:8000>>)]), io:format("~p~n", [length(integer_to_list(lists:foldl(fun(A,B) -> A*B end, 1, lists:seq(1,2000))))]), halt(3).
