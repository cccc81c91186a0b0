//! Errors as a reader meets them: with what led to them.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes, each once, in one line.
///
/// # Example
///
/// ```
/// use yurt_core::error::Chain;
/// use yurt_core::transport::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unreachable, "dial 192.0.2.7:10250").with_source("no route to host");
/// assert_eq!(Chain(&error).to_string(), "dial 192.0.2.7:10250: no route to host");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
