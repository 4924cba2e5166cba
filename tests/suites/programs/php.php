<?php // SPDX-License-Identifier: Apache-2.0
$a=[]; for($i=0;$i<200000;$i++){ $a[$i*7919%1009]=($a[$i*7919%1009]??0)+$i; } echo count($a)," ",array_sum($a),"\n";
function f($n){ return $n<2?$n:f($n-1)+f($n-2);} echo f(22),"\n"; echo preg_replace('/(\w+) (\w+)/','$2 $1','hello world'),"\n"; echo json_encode(['a'=>1,'b'=>[1,2.5,null]]),"\n";
echo shell_exec('echo child'); try { intdiv(1,0);} catch (DivisionByZeroError $e) { echo $e->getMessage(),"\n"; } function g(){ for($i=0;$i<5;$i++) yield $i; } foreach(g() as $v) echo $v; echo "\n", md5('x'), crc32('x'), "\n"; exit(3);
