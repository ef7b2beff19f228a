output "credentials" {
  description = "Points kubectl to the cluster"
  value       = "gcloud container clusters get-credentials ${var.cluster} --zone ${var.zone} --project ${var.project}"
}

output "repository" {
  description = "Where deploy/docker/build_and_push.sh pushes to"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${var.cluster}/mobula"
}

output "sops_key" {
  description = "For .sops.yaml: gcp_kms"
  value       = google_kms_crypto_key.sops.id
}
