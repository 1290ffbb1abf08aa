//! Roles and bindings, from the objects of `rbac.authorization.k8s.io`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{
        ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use crate::decision::websockets::rights::{
    Rbac, role,
    role::{Binding, BindingName, Kind, Operator, Requirement, RoleName, Scope},
    rule::Rule,
    subject,
};

/// What makes the apiserver put a role back at each start.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was not known.
    New,
    /// The same was known.
    Known,
    /// Another of its name is known, and was kept.
    Other,
}

/// An object of RBAC.
pub trait RbacObject {
    /// Its kind.
    const KIND: Kind;

    /// Takes it into what is known, unless one of its name is there.
    ///
    /// # Errors
    /// Where it is none that an apiserver would store: the field, and what is wrong with it.
    fn add_to(self, rbac: &mut Rbac) -> Result<Added, String>;
}

impl RbacObject for Role {
    const KIND: Kind = Kind::Role;

    fn add_to(self, rbac: &mut Rbac) -> Result<Added, String> {
        let name = RoleName { scope: namespace(&self.metadata)?, name: named(&self.metadata) };
        let role = read_role(self.metadata, self.rules, None);
        Ok(add(&mut rbac.roles, name, role))
    }
}

impl RbacObject for ClusterRole {
    const KIND: Kind = Kind::ClusterRole;

    fn add_to(self, rbac: &mut Rbac) -> Result<Added, String> {
        let name = RoleName::cluster(named(&self.metadata));
        let aggregation = match self.aggregation_rule {
            None => None,
            Some(rule) => {
                let selectors = rule.cluster_role_selectors.unwrap_or_default();
                Some(selectors.into_iter().map(selector).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let role = read_role(self.metadata, self.rules, aggregation);
        Ok(add(&mut rbac.roles, name, role))
    }
}

impl RbacObject for RoleBinding {
    const KIND: Kind = Kind::RoleBinding;

    fn add_to(self, rbac: &mut Rbac) -> Result<Added, String> {
        let scope = namespace(&self.metadata)?;
        let name = BindingName { scope, name: named(&self.metadata) };
        add_binding(rbac, name, self.role_ref, self.subjects)
    }
}

impl RbacObject for ClusterRoleBinding {
    const KIND: Kind = Kind::ClusterRoleBinding;

    fn add_to(self, rbac: &mut Rbac) -> Result<Added, String> {
        let name = BindingName { scope: Scope::Cluster, name: named(&self.metadata) };
        add_binding(rbac, name, self.role_ref, self.subjects)
    }
}

fn add<K: Ord, V: PartialEq>(known: &mut BTreeMap<K, V>, name: K, read: V) -> Added {
    match known.get(&name) {
        Some(first) if *first == read => Added::Known,
        Some(_) => Added::Other,
        None => {
            known.insert(name, read);
            Added::New
        }
    }
}

fn named(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn namespace(metadata: &ObjectMeta) -> Result<Scope, String> {
    let namespace = metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
    namespace.map(Scope::Namespace).ok_or_else(|| "metadata.namespace: missing or empty".to_owned())
}

fn read_role(
    metadata: ObjectMeta,
    rules: Option<Vec<PolicyRule>>,
    aggregation: Option<Vec<role::LabelSelector>>,
) -> role::Role {
    let annotations = metadata.annotations.unwrap_or_default();
    role::Role {
        rules: rules.unwrap_or_default().into_iter().map(read_rule).collect(),
        labels: metadata.labels.unwrap_or_default(),
        aggregation,
        reconciled: annotations.get(AUTOUPDATE).is_some_and(|value| value == "true"),
    }
}

fn read_rule(rule: PolicyRule) -> Rule {
    Rule {
        api_groups: rule.api_groups.unwrap_or_default(),
        resources: rule.resources.unwrap_or_default(),
        resource_names: rule.resource_names.unwrap_or_default(),
        verbs: rule.verbs,
    }
}

fn selector(selector: LabelSelector) -> Result<role::LabelSelector, String> {
    let labels: BTreeMap<String, String> = selector.match_labels.unwrap_or_default();
    let equal = labels
        .into_iter()
        .map(|(key, value)| Ok(Requirement { key, operator: Operator::In, values: vec![value] }));
    let expressions = selector.match_expressions.unwrap_or_default().into_iter();
    let compared = expressions.map(|expression| {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(format!(
                    "aggregationRule.clusterRoleSelectors: {other:?} is no operator of labels"
                ));
            }
        };
        let values = expression.values.unwrap_or_default();
        Ok(Requirement { key: expression.key, operator, values })
    });
    let requirements = equal.chain(compared).collect::<Result<_, String>>()?;
    Ok(role::LabelSelector { requirements })
}

fn add_binding(
    rbac: &mut Rbac,
    name: BindingName,
    reference: RoleRef,
    subjects: Option<Vec<Subject>>,
) -> Result<Added, String> {
    let scope = match (reference.kind.as_str(), &name.scope) {
        ("ClusterRole", _) => Scope::Cluster,
        ("Role", Scope::Namespace(_)) => name.scope.clone(),
        ("Role", Scope::Cluster) => {
            return Err("roleRef.kind: a ClusterRoleBinding binds no Role".to_owned());
        }
        (other, _) => return Err(format!("roleRef.kind: {other:?} is no kind of role")),
    };
    if reference.name.is_empty() {
        return Err("roleRef.name: missing or empty".to_owned());
    }
    let role = RoleName { scope, name: reference.name };
    let subjects = subjects.unwrap_or_default().into_iter();
    let subjects = subjects.filter_map(|subject| read_subject(subject, &name.scope)).collect();
    Ok(add(&mut rbac.bindings, name, Binding { role, subjects }))
}

/// A subject; `None` for one that the authorizer passes over.
fn read_subject(subject: Subject, scope: &Scope) -> Option<subject::Subject> {
    match subject.kind.as_str() {
        "User" => Some(subject::Subject::user(&subject.name)),
        "Group" => Some(subject::Subject::Group(subject.name)),
        "ServiceAccount" => {
            let own = subject.namespace.filter(|namespace| !namespace.is_empty());
            let namespace = own.or_else(|| scope.namespace().map(str::to_owned))?;
            Some(subject::Subject::ServiceAccount { namespace, name: subject.name })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn add<T: RbacObject + serde::de::DeserializeOwned>(
        rbac: &mut Rbac,
        value: Value,
    ) -> Result<Added, String> {
        serde_json::from_value::<T>(value).expect("an object").add_to(rbac)
    }

    #[test]
    fn subjects_are_those_whom_the_authorizer_knows() {
        let mut rbac = Rbac::default();
        let subjects = json!([
            {"kind": "User", "name": "jane"},
            {"kind": "User", "name": "system:serviceaccount:b:ci"},
            {"kind": "Group", "name": "devs"},
            {"kind": "ServiceAccount", "name": "here"},
            {"kind": "ServiceAccount", "name": "there", "namespace": "b"},
            {"kind": "Robot", "name": "r"},
        ]);
        let named = |rbac: &Rbac| {
            let all = rbac.bindings.values().flat_map(|binding| &binding.subjects);
            all.map(ToString::to_string).collect::<Vec<_>>()
        };
        let reference = json!({"kind": "ClusterRole", "name": "r"});
        let binding = json!({"metadata": {"name": "x", "namespace": "a"}, "roleRef": reference,
            "subjects": subjects});
        assert_eq!(add::<RoleBinding>(&mut rbac, binding.clone()), Ok(Added::New));
        let some = ["User jane", "ServiceAccount b/ci", "Group devs"];
        let all = [&some[..], &["ServiceAccount a/here", "ServiceAccount b/there"]].concat();
        assert_eq!(named(&rbac), all);
        assert_eq!(add::<RoleBinding>(&mut rbac, binding.clone()), Ok(Added::Known));
        let mut other = binding.clone();
        other["subjects"] = json!([]);
        assert_eq!(add::<RoleBinding>(&mut rbac, other), Ok(Added::Other));
        assert_eq!(named(&rbac), all, "the first is kept");

        let mut rbac = Rbac::default();
        let binding =
            json!({"metadata": {"name": "x"}, "roleRef": reference, "subjects": subjects});
        assert_eq!(add::<ClusterRoleBinding>(&mut rbac, binding), Ok(Added::New));
        // One without a namespace is nobody's there.
        assert_eq!(named(&rbac), [&some[..], &["ServiceAccount b/there"]].concat());
    }

    #[test]
    fn what_no_apiserver_would_store_is_a_mistake() {
        let mut rbac = Rbac::default();
        let binding = |kind: &str, name: &str| {
            json!({"metadata": {"name": "x", "namespace": "a"},
                "roleRef": {"kind": kind, "name": name}})
        };
        for (kind, name, expected) in [
            ("", "r", Some("roleRef.kind: \"\" is no kind of role")),
            ("Secret", "r", Some("roleRef.kind: \"Secret\" is no kind of role")),
            ("Role", "", Some("roleRef.name: missing or empty")),
            ("Role", "r", None),
        ] {
            let added = add::<RoleBinding>(&mut rbac, binding(kind, name));
            assert_eq!(added.err().as_deref(), expected);
        }
        let bound = add::<ClusterRoleBinding>(&mut rbac, binding("Role", "r"));
        assert_eq!(
            bound.err().as_deref(),
            Some("roleRef.kind: a ClusterRoleBinding binds no Role")
        );
        let nowhere = add::<Role>(&mut rbac, json!({"metadata": {"name": "r"}}));
        assert_eq!(nowhere.err().as_deref(), Some("metadata.namespace: missing or empty"));
        let selectors = json!([{"matchExpressions": [{"key": "k", "operator": "Near"}]}]);
        let role = json!({"metadata": {"name": "r"},
            "aggregationRule": {"clusterRoleSelectors": selectors}});
        assert!(add::<ClusterRole>(&mut rbac, role).is_err());
        assert_eq!(rbac.roles.len(), 0);
    }

    #[test]
    fn a_role_is_read_with_what_decides_where_to_change_it() {
        let mut rbac = Rbac::default();
        let role = json!({
            "metadata": {"name": "edit", "labels": {"to-admin": "true"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-edit": "true"}}]},
            "rules": [
                {"apiGroups": [""], "resources": ["pods/exec"], "resourceNames": ["web-0"],
                 "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz"], "verbs": ["get"]},
            ],
        });
        assert_eq!(add::<ClusterRole>(&mut rbac, role), Ok(Added::New));
        let role = &rbac.roles[&RoleName::cluster("edit")];
        assert!(role.reconciled);
        assert_eq!(role.rules[0].resource_names, ["web-0"]);
        assert_eq!(role.rules[1], Rule { verbs: vec!["get".to_owned()], ..Rule::default() });
        let selectors = role.aggregation.as_ref().expect("it is aggregated");
        assert_eq!(selectors[0].requirements[0].values, ["true"]);
        assert_eq!(role.labels["to-admin"], "true");
    }
}
