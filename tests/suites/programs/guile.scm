; SPDX-License-Identifier: Apache-2.0
(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(display (fib 25)) (newline)
(use-modules (ice-9 threads) (srfi srfi-1))
(display (fold + 0 (par-map fib (iota 20)))) (newline)
(display (call/cc (lambda (k) (+ 1 (k 42))))) (newline)
(display (string-length (number->string (fold * 1 (iota 2000 1))))) (newline)
(catch #t (lambda () (vector-ref (vector 1) 5)) (lambda (key . args) (display key) (newline)))
(exit 3)
