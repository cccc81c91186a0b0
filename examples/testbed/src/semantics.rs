//! One suite of API semantics for every API server: the one inside the process, the real one, and
//! whatever stands between them and a client.
//!
//! Each case is a short function with a sentence for a name, and works in a namespace of its own,
//! so that cases can run at once and again. [`api_semantics!`](crate::api_semantics) makes each
//! one a test.

pub mod client;
pub mod place;
pub mod reading;

/// Makes one test of every case.
///
/// The argument is a path to an `async fn() -> (Endpoint, Guard)`; the guard is kept until the
/// case is over.
#[macro_export]
macro_rules! api_semantics {
    ($open:path) => {
        $crate::for_each_case!($open,
            reading: [
                an_object_is_read_as_it_was_written,
            ],
        );
    };
}

/// Used by [`api_semantics!`](crate::api_semantics).
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_case {
    ($open:path, $($area:ident: [$($case:ident,)*],)*) => {
        $(mod $area {
            $(
                #[tokio::test]
                async fn $case() -> Result<(), $crate::client::Error> {
                    let (endpoint, _guard) = $open().await;
                    let client = $crate::client::Client::new(&endpoint)?;
                    $crate::semantics::$area::$case(&client).await
                }
            )*
        })*
    };
}
