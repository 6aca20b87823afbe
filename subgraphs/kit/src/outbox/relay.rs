//! Publishes pending events, in order per key, then clears them.
