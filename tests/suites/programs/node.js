// SPDX-License-Identifier: Apache-2.0
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) {
  let s = 0; for (let i = 0; i < 2e6; i++) s = (s * 31 + i * workerData) | 0;
  parentPort.postMessage(s); return;
}
// (func $fib (param i32) (result i32)) exported as fib; trap: unreachable; load out of bounds
try {
  // sizes are computed here so that the table above stays readable
  const body = (b) => [b.length, ...b];
  const code = [3, ...body([0,32,0,65,2,72,4,127,32,0,5,32,0,65,1,107,16,0,32,0,65,2,107,16,0,106,11,11]), ...body([0,0,11]), ...body([0,32,0,40,2,0,11])];
  const exp = [3, 3,102,105,98,0,0, 3,98,97,100,0,1, 4,108,111,97,100,0,2];
  const m = new Uint8Array([0,97,115,109,1,0,0,0, 1,10,2,96,1,127,1,127,96,0,1,127, 3,4,3,0,1,0, 5,3,1,0,1, 7,exp.length,...exp, 10,code.length,...code]);
  const i = new WebAssembly.Instance(new WebAssembly.Module(m)).exports;
  console.log('fib', i.fib(27));
  try { i.bad(); } catch (e) { console.log(e.message); }
  for (let k = 0; k < 3; k++) try { i.load(0x7ffffff0); } catch (e) { console.log(e.message); }
  console.log('load', i.load(0));
} catch (e) { console.log('wasm', e.message); }
class A { f(x) { return x + 1 } } class B { f(x) { return x + 2 } } class C { f(x) { return '' + x } }
let t = 0; const as = [new A]; for (let i = 0; i < 1e6; i++) t += as[0].f(i);
const abc = [new A, new B, new C]; for (let i = 0; i < 3e5; i++) t += +abc[i % 3].f(i);
console.log(t);
let objs = []; for (let i = 0; i < 3e5; i++) { objs.push({ i, s: 'x' + i }); if (objs.length > 5e4) objs = []; }
console.log(objs.length, JSON.stringify(objs.slice(-2)));
console.log('abcabc'.replace(/(a)(b)/g, '$2$1'), [...'x'.repeat(10)].map((c, i) => i ** 3).join());
const ws = []; for (let k = 1; k <= 4; k++) ws.push(new Promise((r) => new Worker(__filename, { workerData: k }).on('message', r)));
Promise.all(ws).then((v) => { console.log(v);
  const { execFileSync } = require('child_process'); console.log(execFileSync('/bin/echo', ['child']).toString());
  const zlib = require('zlib'); console.log(zlib.gunzipSync(zlib.gzipSync('x'.repeat(100000))).length);
  process.on('SIGUSR2', () => { console.log('usr2'); process.exit(5); }); process.kill(process.pid, 'SIGUSR2'); setTimeout(() => {}, 5000);
});
