//! A real Docker host: an engine in a network namespace of its own, stockade in the container of the compose file.
