// SPDX-License-Identifier: Apache-2.0
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

type node struct{ l, r *node }

func tree(d int) *node {
	if d == 0 {
		return &node{}
	}
	return &node{tree(d - 1), tree(d - 1)}
}
func (n *node) count() int {
	if n.l == nil {
		return 1
	}
	return 1 + n.l.count() + n.r.count()
}

func spin(n int) (x uint64) {
	for i := 0; i < n; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return
}

func nilDeref() (s string) {
	defer func() { s = fmt.Sprint(recover()) }()
	var n *node
	return fmt.Sprint(n.l)
}

func main() {
	runtime.GOMAXPROCS(4)
	debug.SetGCPercent(20)
	var wg sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for g := 0; g < 64; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			c := 0
			for i := 0; i < 20; i++ {
				c += tree(9).count()
			}
			mu.Lock()
			total += c
			mu.Unlock()
		}(g)
	}
	wg.Wait()
	fmt.Println("trees", total)
	// Tight loops are preempted by SIGURG.
	runtime.GOMAXPROCS(1)
	done := make(chan uint64)
	go func() { done <- spin(300000000) }()
	ticks := 0
	for stop := false; !stop; {
		select {
		case v := <-done:
			fmt.Println("spin", v)
			stop = true
		case <-time.After(10 * time.Millisecond):
			ticks++
		}
	}
	fmt.Println("preempted", ticks > 0)
	fmt.Println(nilDeref())
	func() {
		defer func() { fmt.Println(recover()) }()
		z := 0
		fmt.Println(1 / z)
	}()
	c := make(chan os.Signal, 100)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGWINCH)
	for i := 0; i < 10; i++ {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		fmt.Println(<-c)
	}
	ch := make(chan int)
	go func() {
		for i := 0; i < 100000; i++ {
			ch <- i
		}
		close(ch)
	}()
	s := 0
	for v := range ch {
		s += v
	}
	fmt.Println(s)
	for i := 0; i < 5; i++ {
		out, err := exec.Command("/bin/echo", "child", fmt.Sprint(i)).CombinedOutput()
		fmt.Print(string(out), err, "\n")
	}
	var deep func(n int) int
	deep = func(n int) int {
		if n == 0 {
			return 0
		}
		var pad [64]byte
		pad[n%64] = 1
		return deep(n-1) + int(pad[n%64])
	}
	fmt.Println(deep(1000000))
	panic("the end")
}
