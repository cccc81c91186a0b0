// egress-dialer dials as kube-apiserver does: with its own egress selector, on a configuration file of its own kind.
//
//	egress-dialer CONFIG dial TARGET...   dials each target and closes
//	egress-dialer CONFIG echo TARGET      sends stdin, half-closes, prints all that comes back
//	egress-dialer CONFIG first N TARGET   prints the first N bytes of a target that speaks before it is spoken to
//	egress-dialer CONFIG hold TARGET      stays connected until stdin ends
//
// How long each dial took goes to stderr, as does what failed; then the exit code is 1.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
)

// As kube-apiserver's own transport for kubelets gives a dial.
const dialLimit = 30 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "egress-dialer: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: egress-dialer CONFIG (dial TARGET... | echo TARGET | first N TARGET | hold TARGET)")
	}
	dial, err := dialer(args[0])
	if err != nil {
		return err
	}
	mode, targets := args[1], args[2:]
	switch {
	case mode == "dial":
		for _, target := range targets {
			conn, err := connect(dial, target)
			if err != nil {
				return err
			}
			conn.Close()
		}
		return nil
	case mode == "echo" && len(targets) == 1:
		return withConn(dial, targets[0], echo)
	case mode == "hold" && len(targets) == 1:
		return withConn(dial, targets[0], func(net.Conn) error {
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	case mode == "first" && len(targets) == 2:
		count, err := strconv.ParseInt(targets[0], 10, 64)
		if err != nil {
			return fmt.Errorf("count of bytes: %w", err)
		}
		return withConn(dial, targets[1], func(conn net.Conn) error {
			_, err := io.CopyN(os.Stdout, conn, count)
			return err
		})
	}
	return fmt.Errorf("no mode %q with %d arguments", mode, len(targets))
}

func dialer(file string) (utilnet.DialFunc, error) {
	config, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		return nil, err
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(config); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	selector, err := egressselector.NewEgressSelector(config)
	if err != nil {
		return nil, err
	}
	dial, err := selector.Lookup(egressselector.Cluster.AsNetworkContext())
	if err == nil && dial == nil {
		err = fmt.Errorf("%s has no selection named cluster", file)
	}
	return dial, err
}

func connect(dial utilnet.DialFunc, target string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	start := time.Now()
	conn, err := dial(ctx, "tcp", target)
	took := time.Since(start).Round(time.Microsecond)
	if err != nil {
		return nil, fmt.Errorf("dialing %s failed after %s: %w", target, took, err)
	}
	fmt.Fprintf(os.Stderr, "%s dialed in %s\n", target, took)
	return conn, nil
}

func withConn(dial utilnet.DialFunc, target string, use func(net.Conn) error) error {
	conn, err := connect(dial, target)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := use(conn); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

// echo sends and receives at once, so that neither direction waits for the other.
func echo(conn net.Conn) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, os.Stdin)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	select {
	case err := <-sent:
		return err
	case <-time.After(time.Second):
		return fmt.Errorf("closed by the target before all was sent")
	}
}
