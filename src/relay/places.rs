//! Who gets a place in the relay. Pure.
//!
//! Each connection takes descriptors, of which there are only so many. Those of the local kubelet come
//! from whoever the apiserver has let in; those of other hosts may come from anybody who reaches the
//! runtime's port, before he has shown a token. So neither all others nor any one of them can take
//! what the kubelet needs.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

/// The places that are taken.
#[derive(Debug, Default)]
pub struct Places {
    all: usize,
    remote: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Places {
    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.all
    }

    /// Takes one of `most` places, for another host where one is named; `false` where there is none
    /// for it. All other hosts together get three quarters, and each one a quarter.
    pub fn take(&mut self, most: usize, remote: Option<IpAddr>) -> bool {
        let Some(peer) = remote else {
            let free = self.all < most;
            self.all += usize::from(free);
            return free;
        };
        let of_peer = self.by_peer.get(&peer).copied().unwrap_or(0);
        let each = most.div_ceil(4);
        if self.all >= most || self.remote >= most - most / 4 || of_peer >= each {
            return false;
        }
        self.all += 1;
        self.remote += 1;
        *self.by_peer.entry(peer).or_default() += 1;
        true
    }

    /// Gives one back that was taken so.
    pub fn give_back(&mut self, remote: Option<IpAddr>) {
        self.all -= 1;
        let Some(peer) = remote else { return };
        self.remote -= 1;
        if let Entry::Occupied(mut of_peer) = self.by_peer.entry(peer) {
            *of_peer.get_mut() -= 1;
            if *of_peer.get() == 0 {
                of_peer.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn host(n: u8) -> Option<IpAddr> {
        (n > 0).then(|| Ipv4Addr::new(10, 0, 0, n).into())
    }

    fn takes(places: &mut Places, most: usize, remote: Option<IpAddr>) -> usize {
        std::iter::from_fn(|| places.take(most, remote).then_some(())).count()
    }

    #[test]
    fn what_the_kubelet_needs_is_left_to_it() {
        for (most, one, others, kubelet) in [(100, 25, 50, 25), (1, 1, 0, 0), (4, 1, 2, 1)] {
            let mut places = Places::default();
            assert_eq!(takes(&mut places, most, host(1)), one, "{most}");
            let more: usize = (2..=5).map(|n| takes(&mut places, most, host(n))).sum();
            assert_eq!((more, takes(&mut places, most, None)), (others, kubelet), "{most}");
            assert_eq!(places.taken(), most);
        }
        // Where others have none, it may have them all, and then nobody else gets one.
        let mut places = Places::default();
        assert_eq!((takes(&mut places, 100, None), takes(&mut places, 100, host(1))), (100, 0));
    }

    proptest! {
        #[test]
        fn what_was_given_back_can_be_taken_again(steps in prop::collection::vec((0..4_u8, any::<bool>()), 0..200)) {
            let mut places = Places::default();
            let mut held = Vec::new();
            for (n, takes) in steps {
                if takes && places.take(8, host(n)) {
                    held.push(host(n));
                } else if let Some(last) = held.pop() {
                    places.give_back(last);
                }
                prop_assert_eq!(places.taken(), held.len());
                prop_assert!(held.iter().flatten().count() <= 6);
            }
            for last in held {
                places.give_back(last);
            }
            prop_assert_eq!((places.all, places.remote, places.by_peer.len()), (0, 0, 0));
        }
    }
}
