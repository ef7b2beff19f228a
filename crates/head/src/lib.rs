//! The control plane: world, plan, executor, admin API, provisioners.
