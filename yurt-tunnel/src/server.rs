//! To come with its first slice.
