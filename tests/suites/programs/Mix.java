// SPDX-License-Identifier: Apache-2.0
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
public class Mix {
  interface Shape { double area(); }
  record Circle(double r) implements Shape { public double area() { return Math.PI * r * r; } }
  record Sq(double s) implements Shape { public double area() { return s * s; } }
  record Tri(double b, double h) implements Shape { public double area() { return b * h / 2; } }
  static double sum(Shape[] a) { double t = 0; for (Shape s : a) t += s.area(); return t; }
  static class Node { Node l, r; int v; Node(int d) { v = d; if (d > 0) { l = new Node(d - 1); r = new Node(d - 1); } } int count() { return l == null ? 1 : 1 + l.count() + r.count(); } }
  static int field(Node n) { return n.v; }
  static int depth(int n) { return depth(n + 1) + 1; }
  public static void main(String[] x) throws Exception {
    // deoptimisation: monomorphic first, then three kinds
    Shape[] one = new Shape[1000]; Arrays.setAll(one, i -> new Circle(i));
    double t = 0; for (int i = 0; i < 2000; i++) t += sum(one);
    Shape[] mix = new Shape[1000]; Arrays.setAll(mix, i -> i % 3 == 0 ? new Circle(i) : i % 3 == 1 ? new Sq(i) : new Tri(i, 2));
    for (int i = 0; i < 2000; i++) t += sum(mix);
    System.out.printf("area %.3f%n", t);
    // implicit null checks
    Node n = new Node(0); long k = 0; for (int i = 0; i < 200000; i++) k += field(n);
    int npe = 0; for (int i = 0; i < 2000; i++) try { k += field(i % 2 == 0 ? null : n); } catch (NullPointerException e) { npe++; }
    System.out.println("npe " + npe + " " + k);
    int az = 0; for (int i = 0; i < 100000; i++) try { k += 100 / (i % 100); } catch (ArithmeticException e) { az++; }
    System.out.println("div " + az + " " + k);
    int so = 0; for (int i = 0; i < 3; i++) try { depth(0); } catch (StackOverflowError e) { so++; }
    System.out.println("so " + so);
    ExecutorService p = Executors.newFixedThreadPool(16);
    List<Future<Integer>> f = new ArrayList<>();
    for (int i = 0; i < 200; i++) f.add(p.submit(() -> { int c = 0; for (int j = 0; j < 5; j++) c += new Node(11).count(); return c; }));
    int c = 0; for (Future<Integer> q : f) c += q.get();
    System.out.println("nodes " + c); p.shutdown();
    Thread[] ts = new Thread[150]; AtomicLong al = new AtomicLong();
    for (int i = 0; i < ts.length; i++) { final int id = i; ts[i] = new Thread(() -> { for (int j = 0; j < 1000; j++) { al.addAndGet(id); synchronized (Mix.class) { al.incrementAndGet(); } } }); ts[i].start(); }
    for (Thread q : ts) q.join();
    System.out.println("atomic " + al.get());
    System.out.println(IntStream.range(0, 100000).parallel().mapToObj(i -> "s" + i % 1000).collect(Collectors.groupingBy(s -> s, TreeMap::new, Collectors.counting())).get("s7"));
    for (int i = 0; i < 10; i++) { byte[][] big = new byte[50][]; for (int j = 0; j < 50; j++) big[j] = new byte[100000 * (j % 5 + 1)]; k += big[7].length; System.gc(); }
    System.out.println("k " + k);
    Process pr = new ProcessBuilder("/bin/echo", "from child").start(); System.out.print(new String(pr.getInputStream().readAllBytes())); System.out.println(pr.waitFor());
    Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
    System.exit(7);
  }
}
