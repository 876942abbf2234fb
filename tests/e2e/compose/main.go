// Reads a compose file as `docker compose config` does, with the library of that program, for test_deploy.py: compose FILE prints it as JSON,
// with what it takes from other files. What is wrong with it is told on standard error. No variable is set.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithResolvedPaths(true))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	document, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(document)
	return err
}
