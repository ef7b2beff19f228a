variable "project" {
  description = "Project's id; billing must be on"
  type        = string
}

variable "region" {
  description = "Where images and the key are"
  type        = string
  default     = "europe-west4"
}

variable "zone" {
  description = "Where the cluster is"
  type        = string
  default     = "europe-west4-b"
}

variable "cluster" {
  description = "Name of the cluster, of its registry and its key ring"
  type        = string
  default     = "mobula"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}$", var.cluster))
    error_message = "2 to 23 of a-z, 0-9 and '-', the first a letter: the account of the nodes is named after it."
  }
}

variable "cpu_machine" {
  description = "Machine type of nodes without GPU"
  type        = string
  default     = "e2-standard-4"
}

variable "cpu_nodes_min" {
  description = "Nodes without GPU that always exist; three, so that etcd's members are apart"
  type        = number
  default     = 3
}

variable "cpu_nodes_max" {
  description = "Nodes without GPU that may exist"
  type        = number
  default     = 6
}

variable "gpu_machine" {
  description = "Machine type of nodes with a GPU"
  type        = string
  default     = "n1-standard-4"
}

variable "gpu_type" {
  description = "The GPU"
  type        = string
  default     = "nvidia-tesla-t4"
}

variable "gpu_nodes_max" {
  description = "Nodes with a GPU that may exist; 0: no such pool. The project's quotas (global and of the region) must allow as many, and one is enough for upgrades"
  type        = number
  default     = 0
}

variable "gpu_spot" {
  description = "Spot machines for the GPUs"
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether `terraform destroy` is refused"
  type        = bool
  default     = false
}
