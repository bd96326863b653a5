package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// passphraseFlags say where a passphrase comes from: a file, or else the terminal.
type passphraseFlags struct{ file string }

func (p *passphraseFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "passphrase-file", "", "file with the passphrase as its only line (default: ask on the terminal)")
}

// fresh asks for a new passphrase, twice. what is what it will protect.
func (p *passphraseFlags) fresh(ctx context.Context, what string) (string, error) {
	if p.file != "" {
		return readPassphrase(ctx, p.file)
	}
	first, err := askSecret(ctx, "passphrase for "+what+": ")
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	if first == "" {
		return "", errors.New("the passphrase is empty")
	}
	second, err := askSecret(ctx, "passphrase again: ")
	if err == nil && first != second {
		err = errors.New("the two differ")
	}
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	return first, nil
}

// known asks for the passphrase that what is under.
func (p *passphraseFlags) known(ctx context.Context, what string) (string, error) {
	if p.file != "" {
		return readPassphrase(ctx, p.file)
	}
	text, err := askSecret(ctx, "passphrase of "+what+": ")
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	return text, nil
}

func readPassphrase(ctx context.Context, file string) (string, error) {
	text, err := readInput(ctx, file, maxInput)
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 || bytes.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("passphrase: %s is not one line of text", file)
	}
	return string(text), nil
}

// errNoTerminal says that there is nobody to ask.
var errNoTerminal = errors.New("there is no terminal to ask for it")

// askSecret reads a line that the terminal does not show.
func askSecret(ctx context.Context, prompt string) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", errNoTerminal
	}
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	fmt.Fprint(errorOutput(), prompt)
	go func() { // it cannot be called off: after Ctrl-C it ends with the program
		text, err := term.ReadPassword(fd)
		answered <- answer{text, err}
	}()
	defer fmt.Fprintln(errorOutput()) // the user's Enter was not shown
	select {
	case a := <-answered:
		if a.err != nil {
			return "", a.err
		}
		return string(a.text), nil
	case <-ctx.Done():
		return "", errors.Join(errors.New("not given"), term.Restore(fd, before))
	}
}
