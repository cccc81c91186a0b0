//! Who may hold a stream that lasts: a pure count of shares, so that requests that end soon always find room.

use std::collections::HashMap;

use crate::limits::Tenant;

/// What a stream to an API server is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request that ends soon.
    Request,
    /// A watch, or another request that lasts, of this tenant.
    Lasting(Tenant),
}

/// The streams of a pool that last, by who holds them.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    held: HashMap<Tenant, usize>,
    total: usize,
}

impl Lasting {
    /// Returns whether a tenant may hold one more, in a pool of so many streams. An eighth is left for requests that end
    /// soon, and another one for the node. A caller has no more than a quarter.
    pub(super) fn has_room(&self, tenant: &Tenant, streams: usize) -> bool {
        let own = self.held.get(tenant).copied().unwrap_or(0);
        let of_node = self.held.get(&Tenant::Node).copied().unwrap_or(0);
        match tenant {
            Tenant::Node => self.total < Self::limit(streams),
            Tenant::Caller(_) | Tenant::Anonymous(_) => {
                let of_callers = self.total - of_node;
                self.total < Self::limit(streams)
                    && of_callers < streams - streams / 4
                    && own < (streams / 4).max(1)
            }
        }
    }

    /// Returns how many of so many streams may last.
    pub(super) fn limit(streams: usize) -> usize {
        streams - streams / 8
    }

    pub(super) fn begin(&mut self, tenant: &Tenant) {
        *self.held.entry(tenant.clone()).or_default() += 1;
        self.total += 1;
    }

    pub(super) fn end(&mut self, tenant: &Tenant) {
        if let Some(count) = self.held.get_mut(tenant) {
            *count -= 1;
            self.total -= 1;
            if *count == 0 {
                self.held.remove(tenant);
            }
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(lasting: &mut Lasting, tenant: &Tenant, streams: usize) -> usize {
        let mut count = 0;
        while lasting.has_room(tenant, streams) {
            lasting.begin(tenant);
            count += 1;
        }
        count
    }

    fn caller(number: usize) -> Tenant {
        Tenant::Caller(number.to_string().into())
    }

    #[test]
    fn callers_leave_room_for_each_other_for_the_node_and_for_requests() {
        let mut lasting = Lasting::default();
        let of_callers: Vec<_> = (0..5)
            .map(|number| fill(&mut lasting, &caller(number), 80))
            .collect();
        assert_eq!(of_callers, [20, 20, 20, 0, 0]);
        assert_eq!(fill(&mut lasting, &Tenant::Node, 80), 10);
        assert_eq!(lasting.total(), 70);
        lasting.end(&caller(0));
        assert!(lasting.has_room(&caller(4), 80));
    }

    #[test]
    fn the_node_may_have_all_that_last_and_then_nobody_else_has_one() {
        let mut lasting = Lasting::default();
        assert_eq!(fill(&mut lasting, &Tenant::Node, 80), 70);
        assert!(!lasting.has_room(&caller(0), 80));
    }

    #[test]
    fn a_pool_of_one_stream_serves_one() {
        let mut lasting = Lasting::default();
        assert_eq!(fill(&mut lasting, &caller(0), 1), 1);
    }
}
