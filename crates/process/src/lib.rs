//! What every role's process needs: telemetry, admin endpoints, signals, ordered drain, listeners.
