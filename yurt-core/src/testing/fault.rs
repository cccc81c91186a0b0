//! Wrappers that inject faults.
