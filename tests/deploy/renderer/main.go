// A Helm chart or a Compose file in, what Helm or Compose would make of it out, as YAML or JSON.
//
// Helm's and Compose's own libraries do the work, without a cluster and without a Docker engine:
//
//	renderer chart FOLDER KUBE_VERSION [VALUES...]
//	renderer compose FILE ENV_FILE
package main

import (
	"context"
	"fmt"
	"os"
	"sort"

	"github.com/compose-spec/compose-go/v2/cli"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) >= 3 && arguments[0] == "chart":
		return renderChart(arguments[1], arguments[2], arguments[3:])
	case len(arguments) == 3 && arguments[0] == "compose":
		return renderCompose(arguments[1], arguments[2])
	}
	return fmt.Errorf("chart FOLDER KUBE_VERSION [VALUES...] or compose FILE ENV_FILE, not %q", arguments)
}

// renderChart prints every manifest; the values are checked against values.schema.json before.
func renderChart(folder string, kubeVersion string, valuesFiles []string) error {
	loaded, err := loader.Load(folder)
	if err != nil {
		return err
	}
	if err := loaded.Validate(); err != nil {
		return err
	}
	values, err := readValues(valuesFiles)
	if err != nil {
		return err
	}
	capabilities, err := capabilitiesOf(loaded, kubeVersion)
	if err != nil {
		return err
	}
	release := chartutil.ReleaseOptions{Name: "test", Namespace: "indexing", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, values, release, capabilities)
	if err != nil {
		return err
	}
	// Strict, so that a value that a template names and nobody declares is an error.
	rendered, err := engine.Engine{Strict: true}.Render(loaded, all)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(rendered))
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("---\n# Source: %s\n%s\n", name, rendered[name])
	}
	return nil
}

// readValues merges values files; a later one wins, as with `helm -f`.
func readValues(files []string) (chartutil.Values, error) {
	merged := chartutil.Values{}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return nil, err
		}
		merged = chartutil.CoalesceTables(values, merged)
	}
	return merged, nil
}

func capabilitiesOf(loaded *chart.Chart, kubeVersion string) (*chartutil.Capabilities, error) {
	parsed, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *parsed
	wanted := loaded.Metadata.KubeVersion
	if wanted != "" && !chartutil.IsCompatibleRange(wanted, parsed.String()) {
		return nil, fmt.Errorf("the chart takes Kubernetes %s, not %s", wanted, kubeVersion)
	}
	return capabilities, nil
}

// renderCompose prints the project as Compose understands it: variables filled in, schema checked.
func renderCompose(file string, envFile string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnvFiles(envFile), cli.WithDotEnv)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	text, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}
