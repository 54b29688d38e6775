//! Which launches may overlap.
//!
//! Within one concurrent encoder the GPU runs launches in any order, and side by side, except across a memory barrier.
//! One is needed where a launch reads what a launch since the last barrier wrote, or writes what one read or wrote.
//! Between encoders Metal keeps the order of what they share by itself.

use std::collections::HashSet;

use thermite_kernels::contract::Access;

/// What a buffer is known by: never given twice.
pub(super) type BufferId = u64;

/// The buffers that queued work uses.
#[derive(Debug, Default)]
pub(super) struct Hazards {
    /// Read since the last barrier of this encoder.
    read: HashSet<BufferId>,
    /// Written since.
    written: HashSet<BufferId>,
    /// Used by anything that has not been waited for.
    unfinished: HashSet<BufferId>,
}

impl Hazards {
    /// Notes one launch; whether a barrier must stand before it. A buffer may be bound more than once.
    pub(super) fn launch(&mut self, uses: &[(BufferId, Access)]) -> bool {
        let conflicts = |&(id, access): &(BufferId, Access)| {
            self.written.contains(&id) || (access != Access::Read && self.read.contains(&id))
        };
        let barrier = uses.iter().any(conflicts);
        if barrier {
            self.end_encoder();
        }
        for &(id, access) in uses {
            self.unfinished.insert(id);
            if access != Access::Write {
                self.read.insert(id);
            }
            if access != Access::Read {
                self.written.insert(id);
            }
        }
        barrier
    }

    /// What comes next stands in another encoder: all before it is ordered.
    pub(super) fn end_encoder(&mut self) {
        self.read.clear();
        self.written.clear();
    }

    /// All work has been waited for.
    pub(super) fn finish(&mut self) {
        self.end_encoder();
        self.unfinished.clear();
    }

    /// Whether work that has not been waited for uses a buffer.
    pub(super) fn is_unfinished(&self, id: BufferId) -> bool {
        self.unfinished.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::Hazards;
    use proptest::prelude::*;
    use thermite_kernels::catalogue;
    use thermite_kernels::contract::Access::{self, Read, ReadWrite, Write};
    use thermite_kernels::contract::{bindable, contract_of};
    use thermite_kernels::syntax::Role;

    /// Barriers before each of `launches`.
    fn barriers(launches: &[&[(u64, Access)]]) -> Vec<bool> {
        let mut hazards = Hazards::default();
        launches.iter().map(|uses| hazards.launch(uses)).collect()
    }

    #[test]
    fn launches_that_share_only_what_they_read_overlap() {
        // Q, K and V projections of one row
        let launches: [&[_]; 3] =
            [&[(1, Read), (2, Write)], &[(1, Read), (3, Write)], &[(1, Read), (4, Write)]];
        assert_eq!(barriers(&launches), [false, false, false]);
    }

    #[test]
    fn each_kind_of_dependence_needs_a_barrier() {
        for (first, second, wanted) in [
            (Read, Read, false),
            (Write, Read, true),
            (Read, Write, true),
            (Write, Write, true),
            (ReadWrite, Read, true),
            (Read, ReadWrite, true),
            (ReadWrite, ReadWrite, true),
        ] {
            assert_eq!(barriers(&[&[(7, first)], &[(7, second)]]), [false, wanted], "{first:?}, {second:?}");
        }
    }

    #[test]
    fn a_barrier_serves_everything_before_it() {
        let launches: [&[_]; 4] = [
            &[(1, Write)],
            &[(2, Write)],
            &[(1, Read), (3, Write)], // the barrier also orders 2
            &[(2, Read), (4, Write)],
        ];
        assert_eq!(barriers(&launches), [false, false, true, false]);
    }

    #[test]
    fn a_buffer_bound_twice_is_no_conflict_with_itself() {
        let launches: [&[_]; 2] = [&[(1, Write), (1, Read)], &[(1, Write), (1, Read)]];
        assert_eq!(barriers(&launches), [false, true]);
    }

    #[test]
    fn another_encoder_needs_no_barrier_but_stays_unfinished() {
        let mut hazards = Hazards::default();
        hazards.launch(&[(1, Write)]);
        hazards.end_encoder();
        assert!(!hazards.launch(&[(1, Read)]));
        assert!(hazards.is_unfinished(1) && !hazards.is_unfinished(2));
        hazards.finish();
        assert!(!hazards.is_unfinished(1));
        assert!(!hazards.launch(&[(1, Write)]));
    }

    /// Barriers are as good as the accesses that the contracts declare: none may call read what a signature lets a kernel
    /// write, nor know less than all buffers.
    #[test]
    fn contracts_and_signatures_agree_on_what_is_written() {
        let mut buffers = 0;
        for entry in catalogue::kernels().unwrap() {
            let kernel = &entry.kernel;
            let contract = contract_of(&kernel.name).unwrap();
            for (_, parameter) in bindable(kernel) {
                let Role::Buffer { writable, .. } = parameter.role else { continue };
                let rule = contract.buffers.iter().find(|rule| rule.name == parameter.name).unwrap();
                assert_eq!(writable, rule.access != Read, "{}: {}", kernel.name, parameter.name);
                buffers += 1;
            }
        }
        assert!(buffers > 100, "{buffers}");
    }

    fn access() -> impl Strategy<Value = Access> {
        prop_oneof![Just(Read), Just(Write), Just(ReadWrite)]
    }

    proptest! {
        /// Any two launches that depend on each other have a barrier between them; and no barrier stands where nothing
        /// since the last one conflicts.
        #[test]
        fn barriers_stand_between_all_that_depend_and_nowhere_else(
            launches in prop::collection::vec(prop::collection::vec((0u64..6, access()), 1..4), 1..30)
        ) {
            let depend = |a: &[(u64, Access)], b: &[(u64, Access)]| {
                a.iter().any(|(i, x)| b.iter().any(|(j, y)| i == j && (*x != Read || *y != Read)))
            };
            let mut hazards = Hazards::default();
            let mut since = 0;
            for (at, uses) in launches.iter().enumerate() {
                let wanted = launches[since..at].iter().any(|earlier| depend(earlier, uses));
                prop_assert_eq!(hazards.launch(uses), wanted);
                if wanted {
                    since = at;
                }
            }
        }
    }
}
