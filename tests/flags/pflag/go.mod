module sluice.dev/pflag

go 1.19

require (
	github.com/spf13/pflag v1.0.5
	k8s.io/component-base v0.20.15
)

require (
	github.com/go-logr/logr v0.2.0 // indirect
	k8s.io/apimachinery v0.20.15 // indirect
	k8s.io/klog/v2 v2.4.0 // indirect
)
