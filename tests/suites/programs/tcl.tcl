# SPDX-License-Identifier: Apache-2.0
set n 0; for {set i 0} {$i<100000} {incr i} {dict incr d [expr {$i*7919%1009}] $i}; puts [dict size $d]; puts [exec echo child]; puts [expr {2**300}]; puts [catch {expr {1/0}} m]$m; puts [lsort -integer [dict values $d]]; exit 3
