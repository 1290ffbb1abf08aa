{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* 50, because a component's name and a purpose follow and 63 is the limit of a label and of a Service. */}}
{{- define "sluice.fullname" -}}
{{- $name := include "sluice.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sluice.controller.fullname" -}}
{{ include "sluice.fullname" . }}-controller
{{- end }}

{{- define "sluice.agent.fullname" -}}
{{ include "sluice.fullname" . }}-agent
{{- end }}

{{- define "sluice.canary.fullname" -}}
{{ include "sluice.fullname" . }}-canary
{{- end }}

{{- define "sluice.canary.namespace" -}}
{{- default (printf "%s-canary" (.Release.Namespace | trunc 56 | trimSuffix "-")) .Values.canary.namespace }}
{{- end }}

{{- define "sluice.webhook.fullname" -}}
{{ include "sluice.fullname" . }}-webhook
{{- end }}

{{- define "sluice.webhook.configurationName" -}}
{{ include "sluice.fullname" . }}-agents
{{- end }}

{{- define "sluice.webhook.secretName" -}}
{{- default (include "sluice.webhook.fullname" .) .Values.webhook.certificateSecret }}
{{- end }}

{{/* Not empty where the controller makes the certificate itself. */}}
{{- define "sluice.webhook.managed" -}}
{{- if not (or .Values.webhook.certificateSecret .Values.webhook.certManager.enabled) }}managed{{ end }}
{{- end }}

{{- define "sluice.test.fullname" -}}
{{ include "sluice.fullname" . }}-test
{{- end }}

{{/* Not named after the release: two releases in one namespace would then both believe they lead. */}}
{{- define "sluice.controller.leaseName" -}}
sluice-controller
{{- end }}

{{/* Not named after the release either: pipelines and people look for it. */}}
{{- define "sluice.controller.flagsName" -}}
sluice-flags
{{- end }}

{{- define "sluice.controller.serviceAccountName" -}}
{{- if .Values.controller.serviceAccount.create }}
{{- default (include "sluice.controller.fullname" .) .Values.controller.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.controller.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sluice.agent.serviceAccountName" -}}
{{- if .Values.agent.serviceAccount.create }}
{{- default (include "sluice.agent.fullname" .) .Values.agent.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.agent.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sluice.remediator.serviceAccountName" -}}
{{ include "sluice.fullname" . }}-remediator
{{- end }}

{{- define "sluice.image" -}}
{{- $image := .Values.image }}
{{- if not $image.repository }}
{{- fail "set image.repository: build and push the image as in docs/release.md" }}
{{- end }}
{{- $registry := (.Values.global).imageRegistry | default $image.registry }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The Secrets for pulling it, as a list of a pod; those of `global` may be bare names. */}}
{{- define "sluice.imagePullSecrets" -}}
{{- range concat ((.Values.global).imagePullSecrets | default list) .Values.imagePullSecrets | uniq }}
- name: {{ kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name") }}
{{- end }}
{{- end }}

{{/* A pod's labels: {root, labels: the component's as text, more: the values' own}. What is ours stays. */}}
{{- define "sluice.pod.labels" -}}
{{ toYaml (merge (fromYaml .labels) (.more | default dict)) }}
{{- end }}

{{/* A pod's annotations: {ours: as text, more: the values' own}; likewise. */}}
{{- define "sluice.pod.annotations" -}}
{{- with merge (fromYaml (.ours | default "{}")) (.more | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Where the API servers are, as the egress of a NetworkPolicy. Their address comes from the environment: not even DNS is asked. */}}
{{- define "sluice.networkPolicy.egress" -}}
- ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.apiServer.cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* What a selector may name: these never change over the life of a release. */}}
{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sluice
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluice.controller.selectorLabels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "sluice.controller.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "sluice.agent.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "sluice.remediator.selectorLabels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/component: remediator
{{- end }}

{{- define "sluice.remediator.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: remediator
{{- end }}

{{- define "sluice.canary.selectorLabels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/component: canary
{{- end }}

{{- define "sluice.canary.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: canary
{{- end }}

{{/* The same as a selector of the API. */}}
{{- define "sluice.canary.selector" -}}
{{- range $i, $label := splitList "\n" (include "sluice.canary.selectorLabels" .) }}
{{- if $i }},{{ end }}{{ $label | replace ": " "=" }}
{{- end }}
{{- end }}

{{- define "sluice.webhook.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "sluice.test.labels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: test
{{- end }}

{{/* Not named after the release: people bind it, and there is one Sluice in a cluster. */}}
{{- define "sluice.reader.name" -}}
sluice-reader
{{- end }}

{{/* Not empty where the API server knows OpenShift's SecurityContextConstraints, or is said to. */}}
{{- define "sluice.openshift" -}}
{{- $served := .Capabilities.APIVersions.Has "security.openshift.io/v1/SecurityContextConstraints" }}
{{- if eq "true" (.Values.openshift.enabled | toString | replace "auto" (toString $served)) }}openshift{{ end }}
{{- end }}

{{/* Not empty where there are remediators. */}}
{{- define "sluice.remediators" -}}
{{- if or .Values.remediators.apiserver.enabled .Values.remediators.kubelet.enabled }}remediators{{ end }}
{{- end }}

{{/*
The seccompProfile field came with 1.19; 1.18 drops the unknown field in silence and reads an annotation instead.
No runAsUser: the image names a user that is not root, and platforms that choose one themselves refuse another.
*/}}
{{- define "sluice.podSecurityContext" -}}
runAsNonRoot: true
{{- if semverCompare ">=1.19.0-0" .Capabilities.KubeVersion.Version }}
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- end }}

{{- define "sluice.seccompAnnotations" -}}
{{- if semverCompare "<1.19.0-0" .Capabilities.KubeVersion.Version -}}
seccomp.security.alpha.kubernetes.io/pod: runtime/default
{{- end }}
{{- end }}

{{- define "sluice.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
