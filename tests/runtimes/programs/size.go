// What Go's runtime makes of the limits.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

func main() {
	_, isSet := os.LookupEnv("GOMAXPROCS")
	fmt.Println("GOMAXPROCS", runtime.GOMAXPROCS(0))
	fmt.Println("SetMemoryLimit", debug.SetMemoryLimit(-1))
	fmt.Println("NumCPU", runtime.NumCPU())
	fmt.Println("frozen", isSet)
}
