//! Where things are in etcd: `/mobula/<cluster>/state/<key>` and `/mobula/<cluster>/<leader key>`.

use crate::StoreError;
use crate::election::LEADER_KEY;

/// The namespace of one cluster of ours.
#[derive(Clone)]
pub(super) struct Keys {
    state_prefix: String,
    leader: String,
}

// === impl Keys ===

impl Keys {
    pub(super) fn of_cluster(cluster: &str) -> Keys {
        Keys {
            state_prefix: format!("/mobula/{cluster}/state/"),
            leader: format!("/mobula/{cluster}/{LEADER_KEY}"),
        }
    }

    pub(super) fn state(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.state_prefix).into_bytes()
    }

    /// The first key after all that start with the prefix.
    pub(super) fn state_end(&self, prefix: &str) -> Vec<u8> {
        end_of_prefix(self.state(prefix))
    }

    /// Our name of a key of etcd.
    pub(super) fn state_name(&self, key: &[u8]) -> Result<String, StoreError> {
        let name = key.strip_prefix(self.state_prefix.as_bytes());
        let text = name.and_then(|name| std::str::from_utf8(name).ok());
        text.map(str::to_owned).ok_or_else(|| {
            let key = String::from_utf8_lossy(key);
            StoreError::Corrupt(format!("'{key}' is no key of this cluster"))
        })
    }

    pub(super) fn leader(&self) -> Vec<u8> {
        self.leader.clone().into_bytes()
    }
}

/// Never empty here, and never all 0xff: it begins with `/mobula/`.
fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&0xff) {
        prefix.pop();
    }
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_range_holds_exactly_the_keys_with_that_prefix(prefix: String, key: String) {
            let keys = Keys::of_cluster("c");
            let (from, to) = (keys.state(&prefix), keys.state_end(&prefix));
            let at = keys.state(&key);
            prop_assert_eq!(from <= at && at < to, key.starts_with(&prefix));
            prop_assert_eq!(keys.state_name(&at).unwrap(), key);
        }
    }

    #[test]
    fn a_key_of_another_cluster_is_not_taken_for_ours() {
        let other = Keys::of_cluster("other").state("a");
        assert!(Keys::of_cluster("c").state_name(&other).is_err());
    }
}
