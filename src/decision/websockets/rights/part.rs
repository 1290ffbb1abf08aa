//! What shows that not all of a kind was given.

use std::collections::BTreeSet;

use super::{
    Rbac,
    role::{Kind, Scope},
};

/// Every apiserver makes Roles and RoleBindings in both of these when it starts, and lets nobody delete the
/// namespaces.
const NAMESPACES: [&str; 2] = ["kube-system", "kube-public"];
/// As it makes a ClusterRole and a ClusterRoleBinding of this name.
const ADMIN: [&str; 1] = ["cluster-admin"];

/// Where, or under which name, every cluster has one of this kind.
pub fn everywhere(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Role | Kind::RoleBinding => &NAMESPACES,
        Kind::ClusterRole | Kind::ClusterRoleBinding => &ADMIN,
    }
}

/// The kinds of which some were given, and not what every cluster has: those of one namespace, say.
pub fn parts(rbac: &Rbac) -> BTreeSet<Kind> {
    fn sign<'a>(scope: &'a Scope, name: &'a str) -> &'a str {
        scope.namespace().unwrap_or(name)
    }
    let roles = rbac.roles.keys().map(|role| (role.kind(), sign(&role.scope, &role.name)));
    let bindings = rbac.bindings.keys().map(|b| (b.kind(), sign(&b.scope, &b.name)));
    let signs: BTreeSet<(Kind, &str)> = roles.chain(bindings).collect();
    let is_part =
        |kind: &Kind| everywhere(*kind).iter().any(|sign| !signs.contains(&(*kind, sign)));
    rbac.read.iter().copied().filter(|kind| !rbac.whole && is_part(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decision::websockets::rights::{
            DUMP, Question, Report, RightsReason,
            role::{Binding, BindingName, Role, RoleName},
            rule::{Names, Rule, Subresource, Verb},
            subject::Subject,
        },
        kubernetes::version::Minor,
    };

    /// A role and a binding of it, at each of these places: the namespace, or a name behind a slash.
    fn given(places: &[&str]) -> Rbac {
        let mut rbac = Rbac { read: Kind::ALL.into(), ..Rbac::default() };
        for place in places {
            let (scope, name) = match place.strip_prefix('/') {
                Some(name) => (Scope::Cluster, name.to_owned()),
                None => (Scope::Namespace((*place).to_owned()), "x".to_owned()),
            };
            let role = RoleName { scope: scope.clone(), name: name.clone() };
            rbac.roles.insert(role.clone(), Role::default());
            rbac.bindings
                .insert(BindingName { scope, name }, Binding { role, subjects: Vec::new() });
        }
        rbac
    }

    #[test]
    fn a_part_lacks_what_every_cluster_has() {
        use Kind::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
        let (namespaced, cluster) = ([Role, RoleBinding], [ClusterRole, ClusterRoleBinding]);
        for (places, expected) in [
            (&["kube-system", "kube-public", "team", "/cluster-admin"][..], &[][..]),
            (&["kube-system", "kube-public", "/view"], &cluster),
            (&["team", "/cluster-admin"], &namespaced),
            (&["kube-system", "/cluster-admin"], &namespaced),
            (&["kube-public", "team", "/cluster-admin"], &namespaced),
            // The names of the ones are not the namespaces of the others.
            (&["cluster-admin", "/kube-system", "/kube-public"], &Kind::ALL),
        ] {
            let rbac = given(places);
            assert_eq!(parts(&rbac), expected.iter().copied().collect(), "{places:?}");
            assert!(parts(&Rbac { whole: true, ..rbac }).is_empty(), "{places:?}");
        }
        // Of what was not given at all something else is said.
        let mut some = given(&["team", "/cluster-admin"]);
        some.read.remove(&Role);
        assert_eq!(parts(&some), [RoleBinding].into());
    }

    #[test]
    fn of_a_part_nothing_is_safe() {
        const ALL: [&str; 3] = ["kube-system", "kube-public", "/cluster-admin"];
        let report = |rbac: &Rbac| {
            let question = Question { minor: Minor(35), today: false, gate_off: false };
            Report::of(rbac, question, true)
        };
        assert_eq!(report(&given(&ALL)).reason, RightsReason::CreateIsThere);
        for place in ALL {
            let others: Vec<_> = ALL.into_iter().filter(|other| *other != place).collect();
            let mut rbac = given(&others);
            let part = report(&rbac);
            assert_eq!(part.reason, RightsReason::RightsUnknown, "{place}");
            let message = part.message();
            for word in [place.trim_start_matches('/'), DUMP] {
                assert!(message.contains(word), "{word}: {message}");
            }
            assert_eq!(part.gaps().len(), 1, "{:?}", part.gaps());
            // What is seen in a part is so whatever else there is.
            let mut rule = Rule::create(vec![Subresource::Exec], &Names::All);
            rule.verbs = vec![Verb::Get.as_str().to_owned()];
            for role in rbac.roles.values_mut() {
                role.rules.push(rule.clone());
            }
            for binding in rbac.bindings.values_mut() {
                binding.subjects.push(Subject::user("jane"));
            }
            assert_eq!(report(&rbac).reason, RightsReason::GetWithoutCreate, "{place}");
        }
    }
}
