; SPDX-License-Identifier: Apache-2.0
(defun fib (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(print (fib 27))
(print (length (format nil "~d" (reduce #'* (loop for i from 1 to 2000 collect i)))))
(let ((h (make-hash-table))) (dotimes (i 200000) (incf (gethash (mod (* i 7919) 1009) h 0) i)) (print (hash-table-count h)))
(dotimes (i 20) (sb-ext:gc :full (zerop (mod i 5))) (make-list 100000))
(print (handler-case (/ 1 (- 1 1)) (division-by-zero () :div)))
(let ((ts (loop for i below 8 collect (let ((i i)) (sb-thread:make-thread (lambda () (let ((s 0)) (dotimes (j 100000) (incf s (* i j)) (when (zerop (mod j 1000)) (make-list 100))) s))))))) (print (mapcar #'sb-thread:join-thread ts)))
(terpri) (sb-ext:exit :code 3)
