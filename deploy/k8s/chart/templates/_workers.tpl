{{/* The worker groups as the head reads them: what a pod offers, bounds, and its template. */}}

{{/* CPUs as a number: "500m" is 0.5. */}}
{{- define "mobula.cpus" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ divf (trimSuffix "m" $text | float64) 1000 }}{{ else }}{{ float64 $text }}{{ end }}
{{- end }}

{{- define "mobula.workerGroups" -}}
workerGroups:
  {{- range $given := .Values.workerGroups }}
  {{- $group := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy $given) }}
  {{- $limits := $group.resources.limits | default dict }}
  {{- $requests := $group.resources.requests | default dict }}
  {{- if lt (int $group.maxReplicas) (int $group.minReplicas) }}
  {{- fail (printf "workerGroups.%s.maxReplicas: %d is less than minReplicas, %d" $group.name (int $group.maxReplicas) (int $group.minReplicas)) }}
  {{- end }}
  {{- if gt (int $group.surge) (int $group.maxReplicas) }}
  {{- fail (printf "workerGroups.%s.surge: %d is more than maxReplicas, %d" $group.name (int $group.surge) (int $group.maxReplicas)) }}
  {{- end }}
  {{- $cpus := coalesce $group.offers.cpus $limits.cpu $requests.cpu }}
  {{- if not $cpus }}
  {{- fail (printf "workerGroups.%s.offers.cpus: needed where resources name no cpu" $group.name) }}
  {{- end }}
  - name: {{ $group.name }}
    min: {{ $group.minReplicas }}
    max: {{ $group.maxReplicas }}
    priority: {{ $group.priority }}
    idle_timeout_s: {{ $group.idleTimeoutSeconds }}
    headroom: {{ $group.headroom }}
    startup_timeout_s: {{ $group.startupTimeoutSeconds }}
    strategy: {{ $group.strategy }}
    surge: {{ $group.surge }}
    bake_s: {{ $group.bakeSeconds }}
    resources:
      cpus: {{ include "mobula.cpus" $cpus }}
      gpus: {{ coalesce $group.offers.gpus (get $limits "nvidia.com/gpu") | default 0 }}
      {{- with coalesce $group.offers.memory $limits.memory $requests.memory }}
      memory: {{ . }}
      {{- end }}
    template:
      {{- include "mobula.workerPod" (dict "root" $ "group" $group) | trim | nindent 6 }}
  {{- end }}
{{- end }}

{{- define "mobula.workerPod" -}}
{{- $group := .group }}
{{- $cache := $group.cache }}
{{- $scope := dict "root" .root "component" "worker" "labels" $group.podLabels "pod" $group "alike" (dict "mobula.dev/group" $group.name) }}
{{- $token := list }}
{{- with .root.Values.secrets.hfTokenSecretName }}
{{- $token = list (dict "name" "HF_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" $.root.Values.secrets.hfTokenSecretKey))) }}
{{- end }}
{{- $own := ternary (dict "MOBULA_CACHE" "/var/cache/mobula") dict $cache.enabled }}
metadata:
  labels:
    {{- include "mobula.podLabels" $scope | nindent 4 }}
  {{- with mergeOverwrite (include "mobula.scrapeAnnotations" .root | fromYaml) (deepCopy $group.podAnnotations) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  {{- with $group.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  restartPolicy: OnFailure
  {{- include "mobula.pod" $scope | trim | nindent 2 }}
  containers:
    - name: worker
      {{- include "mobula.container" $scope | nindent 6 }}
      args:
        - worker
        - --join={{ include "mobula.join" .root }}
        - --data-addr=0.0.0.0:6381
        - --admin-addr=0.0.0.0:9102
        {{- include "mobula.accessArgs" $scope | nindent 8 }}
        - --labels=group={{ $group.name }}
        {{- range $key, $value := $group.placementLabels }}
        - --labels={{ $key }}={{ $value }}
        {{- end }}
        {{- with $group.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- include "mobula.env" (dict "root" .root "maps" (list $own .root.Values.env $group.env) "lists" (list $token .root.Values.extraEnv $group.extraEnv) "from" (list .root.Values.extraEnvFrom $group.extraEnvFrom)) | trim | nindent 6 }}
      ports:
        - {name: data, containerPort: 6381}
        - {name: metrics, containerPort: 9102}
      {{- include "mobula.probes" (dict "probes" $group.probes "port" "metrics") | trim | nindent 6 }}
      resources:
        {{- toYaml $group.resources | nindent 8 }}
      volumeMounts:
        {{- include "mobula.accessMounts" $scope | nindent 8 }}
        {{- if $cache.enabled }}
        - {name: cache, mountPath: /var/cache/mobula}
        {{- end }}
        {{- with $group.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $group.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "mobula.accessVolumes" (dict "root" .root "tokens" (list "join")) | nindent 4 }}
    {{- if $cache.enabled }}
    - name: cache
      {{- if $cache.existingClaim }}
      persistentVolumeClaim: {claimName: {{ $cache.existingClaim }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $cache.sizeLimit }}}
      {{- end }}
    {{- end }}
    {{- with $group.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
