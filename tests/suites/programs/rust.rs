// SPDX-License-Identifier: Apache-2.0
use std::collections::{BTreeMap, HashMap};
use std::panic;
use std::process::Command;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
fn main() {
    let total = Arc::new(Mutex::new(0u64));
    let handles: Vec<_> = (0..32)
        .map(|k| {
            let total = total.clone();
            thread::spawn(move || {
                let mut m = HashMap::new();
                for i in 0..20000u64 {
                    *m.entry(i * k % 977).or_insert(0u64) += i;
                }
                *total.lock().unwrap() += m.values().sum::<u64>();
            })
        })
        .collect();
    for h in handles {
        h.join().unwrap();
    }
    println!("total {}", total.lock().unwrap());
    let mut caught = 0;
    for i in 0..200 {
        let r = panic::catch_unwind(|| {
            let v: Vec<i32> = vec![1, 2, 3];
            if i % 2 == 0 { v[i + 5] } else { v[i % 3] }
        });
        caught += r.is_err() as i32;
    }
    println!("caught {}", caught);
    let t = thread::spawn(|| { panic!("in thread") });
    println!("join is err {}", t.join().is_err());
    let (tx, rx) = mpsc::channel();
    for k in 0..8 { let tx = tx.clone(); thread::spawn(move || { for i in 0..1000 { tx.send(k * i).unwrap(); } }); }
    drop(tx);
    println!("sum {}", rx.iter().sum::<i32>());
    let mut b = BTreeMap::new();
    for i in 0..100000u64 { b.insert(i.wrapping_mul(2654435761) % 100003, i); }
    println!("tree {} {:?}", b.len(), b.iter().nth(777));
    for i in 0..5 { let o = Command::new("/bin/echo").arg(format!("child {}", i)).output().unwrap(); print!("{}", String::from_utf8_lossy(&o.stdout)); }
    println!("{}", (1..2000).map(|x| (x as f64).sqrt().sin()).sum::<f64>());
    let x: Option<i32> = None;
    x.expect("final panic");
}
