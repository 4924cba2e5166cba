# SPDX-License-Identifier: Apache-2.0
require 'json'; require 'set'
h = Hash.new(0); 200000.times { |i| h[i * 7919 % 1009] += i }
puts h.size, h.values.sum, JSON.generate(h.first(3))
ts = 8.times.map { |k| Thread.new { (1..20000).reduce(:+) * k } }; p ts.map(&:value)
trap('USR1') { puts 'usr1' }; Process.kill('USR1', $$); sleep 0.05
f = Fiber.new { 3.times { |i| Fiber.yield i }; :done }; p 4.times.map { f.resume }
def deep(n) = deep(n + 1)
begin; deep(0); rescue SystemStackError; puts 'deep'; end
puts `echo child`; pid = fork { puts 'forked'; exit! 3 }; Process.wait pid; p $?.exitstatus
GC.stress = false; 5.times { GC.start; GC.compact rescue nil }
p 'héllo'.encode('UTF-16LE').bytes.size, 2**500, 'x' =~ /y?/
raise 'end' rescue puts $!.message
exit 4
