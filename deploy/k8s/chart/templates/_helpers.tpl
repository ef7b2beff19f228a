{{/* Names and labels. Names of objects end in at most 23 characters of their own. */}}

{{- define "mobula.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "mobula.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "mobula.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "mobula.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "mobula.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* What selects pods: these never change. Takes (dict "root" $ "component" name). */}}
{{- define "mobula.selector" -}}
app.kubernetes.io/name: {{ include "mobula.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object of a component. */}}
{{- define "mobula.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/version" (default .root.Chart.AppVersion .root.Values.image.tag | trunc 63 | toString)
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "mobula"
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
{{- toYaml (mergeOverwrite $labels (deepCopy .root.Values.commonLabels) (include "mobula.selector" . | fromYaml)) }}
{{- end }}

{{/* Labels of a pod: nothing in them changes with the chart's version, so that its upgrade alone
   restarts nobody. Takes also "labels". */}}
{{- define "mobula.podLabels" -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.commonLabels) (deepCopy (.labels | default dict)) (include "mobula.selector" . | fromYaml)) }}
{{- end }}

{{/* metadata of an object. Takes root, component, name, and annotations. */}}
{{- define "mobula.metadata" -}}
name: {{ .name }}
namespace: {{ include "mobula.namespace" .root }}
labels:
  {{- include "mobula.labels" . | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (deepCopy (.annotations | default dict)) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "mobula.headService" -}}
{{- default (printf "%s-head" (include "mobula.fullname" .)) .Values.head.service.name }}
{{- end }}

{{- define "mobula.routerService" -}}
{{- default (include "mobula.fullname" .) .Values.router.service.name }}
{{- end }}

{{- define "mobula.authSecret" -}}
{{- default (printf "%s-auth" (include "mobula.fullname" .)) .Values.auth.existingSecret }}
{{- end }}

{{- define "mobula.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "mobula.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image by tag or digest. Takes (dict "root" $ "image" image "tag" default). */}}
{{- define "mobula.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry }}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .tag .image.tag }}{{ end }}
{{- end }}

{{/* Every head by name: whoever joins tries them in turn until one leads. */}}
{{- define "mobula.join" -}}
{{- $heads := list }}
{{- $name := include "mobula.fullname" . }}
{{- range $i := until (int .Values.head.replicas) }}
{{- $heads = append $heads (printf "%s-head-%d.%s-peers.%s.svc:6380" $name $i $name (include "mobula.namespace" $)) }}
{{- end }}
{{- join "," $heads }}
{{- end }}

{{- define "mobula.etcdEndpoints" -}}
{{- if .Values.etcd.enabled }}
{{- $members := list }}
{{- $name := printf "%s-etcd" (include "mobula.fullname" .) }}
{{- range $i := until (int .Values.etcd.replicas) }}
{{- $members = append $members (printf "http://%s-%d.%s.%s.svc:2379" $name $i $name (include "mobula.namespace" $)) }}
{{- end }}
{{- join "," $members }}
{{- else }}
{{- join "," .Values.etcd.external.endpoints }}
{{- end }}
{{- end }}

{{/* The name that keeps this cluster apart from others in the same etcd. */}}
{{- define "mobula.etcdCluster" -}}
{{- printf "%s-%s" (include "mobula.fullname" .) (include "mobula.namespace" . | sha256sum | trunc 8) }}
{{- end }}

{{/* The Serve config as text; empty: there is none to deploy. */}}
{{- define "mobula.serveConfig" -}}
{{- if kindIs "string" .Values.serveConfig }}{{ .Values.serveConfig }}
{{- else if .Values.serveConfig }}{{ toYaml .Values.serveConfig }}
{{- end }}
{{- end }}

{{/* Combinations of values that cannot work; a schema sees one value at a time. */}}
{{- define "mobula.check" -}}
{{- $external := .Values.etcd.external }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "mobula.fullname" .)) }}
{{- fail (printf "fullnameOverride: '%s' names Services, so it must begin with a-z and have only a-z, 0-9 and '-'" (include "mobula.fullname" .)) }}
{{- end }}
{{- if and .Values.etcd.enabled $external.endpoints }}
{{- fail "etcd.external.endpoints: set etcd.enabled to false to use an etcd of yours" }}
{{- end }}
{{- if and (not (include "mobula.etcdEndpoints" .)) (gt (int .Values.head.replicas) 1) }}
{{- fail (printf "head.replicas: %d heads need etcd (etcd.enabled, or etcd.external.endpoints); without it only 1 is allowed" (int .Values.head.replicas)) }}
{{- end }}
{{- if and $external.user (not $external.passwordSecretName) }}
{{- fail "etcd.external.passwordSecretName: needed with etcd.external.user" }}
{{- end }}
{{- if and $external.clientCertificate (not $external.tlsSecretName) }}
{{- fail "etcd.external.tlsSecretName: needed with etcd.external.clientCertificate" }}
{{- end }}
{{- if and .Values.tls.caConfigMap (not .Values.tls.existingSecret) }}
{{- fail "tls.existingSecret: needed with tls.caConfigMap" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: name at least one gateway" }}
{{- end }}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) }}
{{- fail "grpcRoute.parentRefs: name at least one gateway" }}
{{- end }}
{{- if and .Values.router.autoscaling.enabled (lt (int .Values.router.autoscaling.maxReplicas) (int .Values.router.replicas)) }}
{{- fail (printf "router.autoscaling.maxReplicas: %d is less than router.replicas, %d" (int .Values.router.autoscaling.maxReplicas) (int .Values.router.replicas)) }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: name at least one host" }}
{{- end }}
{{- include "mobula.checkKinds" . }}
{{- $names := dict }}
{{- range $group := .Values.workerGroups }}
{{- if hasKey $names $group.name }}
{{- fail (printf "workerGroups: the name '%s' is used twice" $group.name) }}
{{- end }}
{{- if has $group.name (list "head" "router" "etcd") }}
{{- fail (printf "workerGroups: a group cannot be named '%s', that is the name of a role" $group.name) }}
{{- end }}
{{- $_ := set $names $group.name true }}
{{- end }}
{{- end }}

{{/* Kinds that a cluster has only where somebody brought them. A cluster that was asked tells its
   kinds; Helm alone, as in `helm template`, knows groups but no kinds, and nothing is concluded. */}}
{{- define "mobula.checkKinds" -}}
{{- $monitoring := "monitoring.coreos.com/v1" }}
{{- $gateway := "gateway.networking.k8s.io/v1" }}
{{- $values := .Values }}
{{- $known := .Capabilities.APIVersions }}
{{- range $needs := list
  (list "metrics.serviceMonitor" $values.metrics.serviceMonitor.enabled $monitoring "ServiceMonitor" "the Prometheus operator")
  (list "metrics.podMonitor" $values.metrics.podMonitor.enabled $monitoring "PodMonitor" "the Prometheus operator")
  (list "metrics.prometheusRule" $values.metrics.prometheusRule.enabled $monitoring "PrometheusRule" "the Prometheus operator")
  (list "httpRoute" $values.httpRoute.enabled $gateway "HTTPRoute" "the Gateway API")
  (list "grpcRoute" $values.grpcRoute.enabled $gateway "GRPCRoute" "the Gateway API") }}
{{- $value := index $needs 0 }}
{{- $kind := printf "%s/%s" (index $needs 2) (index $needs 3) }}
{{- if and (index $needs 1) ($known.Has "v1/Pod") (not ($known.Has $kind)) }}
{{- fail (printf "%s.enabled: this cluster has no %s; install the CRDs of %s first, or set it to false" $value $kind (index $needs 4)) }}
{{- end }}
{{- end }}
{{- end }}
