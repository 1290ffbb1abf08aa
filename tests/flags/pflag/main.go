// What Kubernetes' own flag parser makes of command lines: each line of standard input is a JSON list of
// arguments, each line of standard output what they come to.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
)

type answer struct {
	// Why the program would not start; empty where it would.
	Error string `json:"error"`
	// The boolean flag; missing where it is not given.
	Redirects *bool `json:"redirects"`
	// The gate; missing where it is not named.
	Gate *bool `json:"gate"`
}

const (
	flag = "redirect-container-streaming"
	gate = "StreamingProxyRedirects"
)

// gates keeps what is set by name, which the featuregate package does not tell.
type gates struct {
	featuregate.MutableFeatureGate
	named map[string]bool
}

func (g gates) SetFromMap(m map[string]bool) error {
	for name, on := range m {
		g.named[name] = on
	}
	return g.MutableFeatureGate.SetFromMap(m)
}

func parse(args []string) answer {
	fs := pflag.NewFlagSet("program", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.SetOutput(discard{})
	redirects := fs.Bool(flag, false, "")
	// A boolean and a text that the reader knows, and one of each that it does not.
	fs.Bool("anonymous-auth", false, "")
	fs.Bool("made-up-bool", false, "")
	fs.String("config", "", "")
	fs.String("advertise-address", "", "")
	fs.String("made-up-text", "", "")
	fs.Int32P("v", "v", 0, "")
	known := featuregate.NewFeatureGate()
	_ = known.Add(map[featuregate.Feature]featuregate.FeatureSpec{
		gate:    {Default: true, PreRelease: featuregate.Beta},
		"Other": {Default: false, PreRelease: featuregate.Beta},
	})
	set := gates{known, map[string]bool{}}
	fs.Var(cliflag.NewMapStringBool(&set.named), "feature-gates", "")
	if err := fs.Parse(args); err != nil {
		return answer{Error: err.Error()}
	}
	if err := known.SetFromMap(set.named); err != nil {
		return answer{Error: err.Error()}
	}
	// Neither kubelet nor apiserver starts with words that are no flags.
	if fs.NArg() > 0 {
		return answer{Error: "words that are no flags"}
	}
	var out answer
	if fs.Changed(flag) {
		out.Redirects = redirects
	}
	if on, ok := set.named[gate]; ok {
		out.Gate = &on
	}
	return out
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var args []string
		if err := json.Unmarshal(in.Bytes(), &args); err != nil {
			panic(err)
		}
		if err := out.Encode(parse(args)); err != nil {
			panic(err)
		}
	}
}
