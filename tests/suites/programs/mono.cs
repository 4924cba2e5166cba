// SPDX-License-Identifier: Apache-2.0
using System; using System.Collections.Generic; using System.Linq; using System.Threading;
class N { public N l, r; public int v; public N(int d) { if (d > 0) { l = new N(d-1); r = new N(d-1);} } public int C() { return l == null ? 1 : 1 + l.C() + r.C(); } }
class P { static int F(N n) { return n.v; } static int Main() {
 int npe = 0; for (int i = 0; i < 200; i++) try { F(null); } catch (NullReferenceException) { npe++; } Console.WriteLine(npe);
 int z = 0, dz = 0; for (int i = 0; i < 200; i++) try { z = 1 / z; } catch (DivideByZeroException) { dz++; } Console.WriteLine(dz);
 var ts = Enumerable.Range(0, 8).Select(k => { var t = new Thread(() => { int c = 0; for (int i = 0; i < 20; i++) c += new N(10).C(); lock (typeof(P)) tot += c * k; }); t.Start(); return t; }).ToList(); ts.ForEach(t => t.Join()); Console.WriteLine(tot);
 var d = new Dictionary<int,long>(); for (int i = 0; i < 100000; i++) { d.TryGetValue(i*7 % 1009, out long q); d[i*7%1009] = q + i; } Console.WriteLine(d.Values.Sum());
 GC.Collect(); Console.WriteLine(string.Join(",", Enumerable.Range(0,100000).AsParallel().Select(i => (long)i*i).Where(i => i % 99991 == 0).OrderBy(i => i)));
 return 5; } static long tot; }
