{{/* How the controller is told to roll out the agents. */}}
{{- define "sluice.agent.args" -}}
{{- $agent := .Values.agent -}}
{{- if $agent.enabled -}}
- --agent-image={{ include "sluice.image" . }}
- --agent-pull-policy={{ .Values.image.pullPolicy }}
{{- range include "sluice.imagePullSecrets" . | fromYamlArray }}
- --agent-pull-secret={{ .name }}
{{- end }}
- --agent-name={{ include "sluice.agent.fullname" . }}
{{- with $agent.priorityClassName }}
- --agent-priority-class={{ . }}
{{- end }}
{{- with $agent.criSocket }}
- --agent-cri-socket={{ . }}
{{- end }}
- --agent-port={{ int $agent.port }}
- --agent-grace={{ int $agent.gracePeriodSeconds }}
- --agent-log={{ $agent.log.level }}
- --agent-log-format={{ $agent.log.format }}
{{- with $agent.resources.requests }}
{{- with .cpu }}
- --agent-cpu-request={{ . }}
{{- end }}
{{- with .memory }}
- --agent-memory-request={{ . }}
{{- end }}
{{- end }}
{{- with $agent.resources.limits }}
{{- with .memory }}
- --agent-memory-limit={{ . }}
{{- end }}
{{- end }}
{{- $more := dict "tolerations" $agent.tolerations }}
{{- range $key, $value := dict "labels" (merge dict $agent.podLabels .Values.commonLabels) "annotations" $agent.podAnnotations "env" $agent.extraEnv }}
{{- if $value }}{{ $_ := set $more $key $value }}{{ end }}
{{- end }}
{{- /* What the kubelet would expand here is meant for the agents' pods. */}}
- {{ printf "--agent-pod=%s" (toJson $more | replace "$(" "$$(") | toJson }}
{{- end }}
{{- end }}
