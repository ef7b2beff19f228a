# A GKE cluster for the chart: a zone's control plane, pools for processors and, if wanted, GPUs that
# both start small and follow the pods, the Gateway API, managed Prometheus, and a key for SOPS.
terraform {
  required_version = ">= 1.6"
  backend "gcs" {}
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_project_service" "needed" {
  for_each           = toset(["container.googleapis.com", "artifactregistry.googleapis.com", "cloudkms.googleapis.com"])
  service            = each.value
  disable_on_destroy = false
}

resource "google_artifact_registry_repository" "images" {
  repository_id = var.cluster
  location      = var.region
  format        = "DOCKER"
  depends_on    = [google_project_service.needed]
}

# Nodes with their own account and no more rights than nodes need.
resource "google_service_account" "nodes" {
  account_id = "${var.cluster}-nodes"
}

resource "google_project_iam_member" "nodes" {
  for_each = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])
  project  = var.project
  role     = each.value
  member   = "serviceAccount:${google_service_account.nodes.email}"
}

resource "google_container_cluster" "this" {
  name                     = var.cluster
  location                 = var.zone
  remove_default_node_pool = true
  initial_node_count       = 1
  networking_mode          = "VPC_NATIVE"
  # Enforces the chart's NetworkPolicies.
  datapath_provider   = "ADVANCED_DATAPATH"
  deletion_protection = var.deletion_protection

  release_channel {
    channel = "REGULAR"
  }
  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }
  gateway_api_config {
    channel = "CHANNEL_STANDARD"
  }
  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS"]
    managed_prometheus {
      enabled = true
    }
  }
  cluster_autoscaling {
    # Only how nodes are taken away; the pools below say which there are.
    autoscaling_profile = "OPTIMIZE_UTILIZATION"
  }
  depends_on = [google_project_service.needed]
}

resource "google_container_node_pool" "cpu" {
  name     = "cpu"
  cluster  = google_container_cluster.this.id
  location = var.zone
  autoscaling {
    min_node_count = var.cpu_nodes_min
    max_node_count = var.cpu_nodes_max
  }
  node_config {
    machine_type    = var.cpu_machine
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }
}

resource "google_container_node_pool" "gpu" {
  count    = var.gpu_nodes_max > 0 ? 1 : 0
  name     = "gpu"
  cluster  = google_container_cluster.this.id
  location = var.zone
  autoscaling {
    min_node_count = 0
    max_node_count = var.gpu_nodes_max
  }
  node_config {
    machine_type    = var.gpu_machine
    spot            = var.gpu_spot
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { accelerator = var.gpu_type }
    guest_accelerator {
      type  = var.gpu_type
      count = 1
      # CUDA 13 of the image's GPU variant wants driver 580 or newer.
      gpu_driver_installation_config {
        gpu_driver_version = "LATEST"
      }
    }
    taint {
      key    = "nvidia.com/gpu"
      value  = "present"
      effect = "NO_SCHEDULE"
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
}

# Flux reads the chart from the registry as its own account.
resource "google_artifact_registry_repository_iam_member" "flux" {
  repository = google_artifact_registry_repository.images.id
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = "${local.flux}/source-controller"
  depends_on = [google_container_cluster.this]
}

# SOPS encrypts the files of flux/ with this key; Flux decrypts them as its own account.
resource "google_kms_key_ring" "sops" {
  name       = var.cluster
  location   = var.region
  depends_on = [google_project_service.needed]
}

resource "google_kms_crypto_key" "sops" {
  name            = "sops"
  key_ring        = google_kms_key_ring.sops.id
  rotation_period = "7776000s"
  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "flux" {
  crypto_key_id = google_kms_crypto_key.sops.id
  role          = "roles/cloudkms.cryptoKeyDecrypter"
  member        = "${local.flux}/kustomize-controller"
  depends_on    = [google_container_cluster.this]
}

data "google_project" "this" {}

locals {
  pool = "//iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog"
  flux = "principal:${local.pool}/subject/ns/flux-system/sa"
}
