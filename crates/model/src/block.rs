//! Block headers and the event tree of a block.

use crate::Digest;
use borsh::{BorshDeserialize, BorshSerialize};

/// The header of a block. Its hash under the suite is what validators finalise.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// The chain.
    pub chain: Digest,
    /// The committee's epoch.
    pub epoch: u64,
    /// The view it was proposed in.
    pub view: u64,
    /// The vote key of the proposer.
    pub leader: [u8; 32],
    /// The view of the parent.
    pub parent_view: u64,
    /// The hash of the parent's header.
    pub parent: Digest,
    /// The height, from 0 (genesis).
    pub height: u64,
    /// Milliseconds since 1970; never less than the parent's.
    pub time_ms: u64,
    /// The root of the authenticated state after this block.
    pub state_root: Digest,
    /// The root of the state database's operation log, for catching up.
    pub log_root: Digest,
    /// The first operation that is not inactive.
    pub log_start: u64,
    /// The number of operations.
    pub log_end: u64,
    /// The root of the event tree.
    pub event_root: Digest,
    /// The hash of the roster in force.
    pub roster: Digest,
    /// The hash of the [`EpochEnd`](crate::EpochEnd) where an epoch ends with this block, else zeros.
    pub epoch_end: Digest,
}

/// How many validators must have signed.
pub struct Quorum;

impl Quorum {
    /// `n - f` with `f = (n - 1) / 3`: the least number of votes that finalises.
    pub fn of(n: usize) -> usize {
        n - n.saturating_sub(1) / 3
    }
}

/// A plain binary Merkle tree after RFC 6962 (leaf prefix 0, node prefix 1), generic over the hash.
pub mod merkle {
    use crate::Digest;
    use borsh::{BorshDeserialize, BorshSerialize};

    /// A hash over the concatenation of its parts.
    pub type Hash = fn(&[&[u8]]) -> Digest;

    /// The hash of a leaf.
    pub fn leaf(hash: Hash, data: &[u8]) -> Digest {
        hash(&[&[0], data])
    }

    fn node(hash: Hash, left: &Digest, right: &Digest) -> Digest {
        hash(&[&[1], &left.0, &right.0])
    }

    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    /// What a header commits to: the number of leaves and the root over them.
    pub fn sized_root(hash: Hash, size: usize, root: &Digest) -> Digest {
        hash(&[&[2], &(size as u32).to_le_bytes(), &root.0])
    }

    /// The sized root over leaf hashes.
    pub fn root(hash: Hash, leaves: &[Digest]) -> Digest {
        sized_root(hash, leaves.len(), &subtree(hash, leaves))
    }

    /// The root of a subtree; the hash of nothing where it is empty.
    fn subtree(hash: Hash, leaves: &[Digest]) -> Digest {
        match leaves {
            [] => hash(&[]),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node(hash, &subtree(hash, left), &subtree(hash, right))
            }
        }
    }

    /// The audit path of leaf `index`, from the leaf upwards.
    pub fn path(hash: Hash, leaves: &[Digest], index: usize) -> Vec<Digest> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut path, sibling) = if index < left.len() {
            (path(hash, left, index), subtree(hash, right))
        } else {
            (path(hash, right, index - left.len()), subtree(hash, left))
        };
        path.push(sibling);
        path
    }

    /// The sized root that leaf `index` of `size` has with an audit path, or `None` where the path's length is wrong.
    pub fn root_from_path(
        hash: Hash,
        leaf: Digest,
        index: usize,
        size: usize,
        path: &[Digest],
    ) -> Option<Digest> {
        Some(sized_root(hash, size, &climb(hash, leaf, index, size, path)?))
    }

    /// What is kept of a growing tree to go on with it: the roots of its full subtrees, the largest first.
    #[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
    pub struct Frontier {
        size: u64,
        peaks: Vec<Digest>,
    }

    impl Frontier {
        /// How many leaves there are.
        pub fn size(&self) -> u64 {
            self.size
        }

        /// Adds the hash of a leaf.
        pub fn push(&mut self, hash: Hash, leaf: Digest) {
            let mut peak = leaf;
            for _ in 0..self.size.trailing_ones() {
                let left = self.peaks.pop().expect("a full subtree for every bit of the size");
                peak = node(hash, &left, &peak);
            }
            self.peaks.push(peak);
            self.size += 1;
        }

        /// The sized root over all leaves: that of [`root`].
        pub fn root(&self, hash: Hash) -> Digest {
            let (last, rest) = match self.peaks.split_last() {
                Some((last, rest)) => (*last, rest),
                None => (hash(&[]), &[][..]),
            };
            let root = rest.iter().rev().fold(last, |right, left| node(hash, left, &right));
            sized_root(hash, self.size as usize, &root)
        }
    }

    fn climb(hash: Hash, leaf: Digest, index: usize, size: usize, path: &[Digest]) -> Option<Digest> {
        if index >= size {
            return None;
        }
        if size == 1 {
            return path.is_empty().then_some(leaf);
        }
        let (last, rest) = path.split_last()?;
        let left = split(size);
        if index < left {
            Some(node(hash, &climb(hash, leaf, index, left, rest)?, last))
        } else {
            Some(node(hash, last, &climb(hash, leaf, index - left, size - left, rest)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{merkle, merkle::Hash};
    use crate::Digest;

    /// A stand-in hash: the tree's shape is tested here, not the hash.
    const FOLD: Hash = |parts| {
        let mut state = [0u8; 32];
        for (i, byte) in parts.iter().flat_map(|p| p.iter()).enumerate() {
            state[i % 32] = state[i % 32].wrapping_mul(31).wrapping_add(*byte) ^ i as u8;
            state[(i + 7) % 32] = state[(i + 7) % 32].rotate_left(3).wrapping_add(state[i % 32]);
        }
        Digest(state)
    };

    #[test]
    fn a_growing_tree_has_the_root_of_the_whole() {
        let mut frontier = merkle::Frontier::default();
        let mut leaves = Vec::new();
        for i in 0..70u8 {
            assert_eq!(frontier.root(FOLD), merkle::root(FOLD, &leaves), "{i} leaves");
            leaves.push(merkle::leaf(FOLD, &[i]));
            frontier.push(FOLD, leaves[i as usize]);
        }
    }

    #[test]
    fn every_leaf_has_a_path_and_only_at_its_place_and_size() {
        for size in 1..=20usize {
            let leaves: Vec<_> = (0..size).map(|i| merkle::leaf(FOLD, &[i as u8])).collect();
            let root = merkle::root(FOLD, &leaves);
            for (i, leaf) in leaves.iter().enumerate() {
                let path = merkle::path(FOLD, &leaves, i);
                assert_eq!(merkle::root_from_path(FOLD, *leaf, i, size, &path), Some(root));
                assert_ne!(
                    merkle::root_from_path(FOLD, *leaf, i, size + 1, &path),
                    Some(root),
                    "size {size} leaf {i}"
                );
                assert_eq!(merkle::root_from_path(FOLD, *leaf, size, size, &path), None);
            }
        }
    }
}
