//! Who has a right, and through which groups.

use std::fmt;

/// What the user name of a ServiceAccount begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// The group of all ServiceAccounts; with a namespace behind it, of those there.
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// The group of everybody whom the apiserver knows.
const AUTHENTICATED: &str = "system:authenticated";
/// The user that stands for everybody else, and its group.
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that the apiserver lets through before it asks RBAC.
const MASTERS: &str = "system:masters";

/// Somebody to whom a binding gives a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A user.
    User(String),
    /// Everybody in a group.
    Group(String),
    /// A ServiceAccount.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Subject {
    /// The user of this name. That of a ServiceAccount is the ServiceAccount.
    pub fn user(name: &str) -> Self {
        let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
        match account {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            _ => Self::User(name.to_owned()),
        }
    }

    /// The name by which the authorizer knows it; `None` for a group.
    pub fn user_name(&self) -> Option<String> {
        match self {
            Self::User(name) => Some(name.clone()),
            Self::ServiceAccount { namespace, name } => {
                Some(format!("{SERVICE_ACCOUNT}{namespace}:{name}"))
            }
            Self::Group(_) => None,
        }
    }

    /// The groups that it is in for certain; of a group, those that all its members are in as well.
    pub fn groups(&self) -> Vec<String> {
        let authenticated = || AUTHENTICATED.to_owned();
        match self {
            Self::User(name) if name == ANONYMOUS => vec![UNAUTHENTICATED.to_owned()],
            Self::User(_) => vec![authenticated()],
            Self::ServiceAccount { namespace, .. } => vec![
                SERVICE_ACCOUNTS.to_owned(),
                format!("{SERVICE_ACCOUNTS}:{namespace}"),
                authenticated(),
            ],
            Self::Group(name) if [AUTHENTICATED, UNAUTHENTICATED].contains(&name.as_str()) => {
                Vec::new()
            }
            Self::Group(name) => match name.strip_prefix(SERVICE_ACCOUNTS) {
                Some(rest) if rest.starts_with(':') => {
                    vec![SERVICE_ACCOUNTS.to_owned(), authenticated()]
                }
                _ => vec![authenticated()],
            },
        }
    }

    /// Whether it may be in groups of which only the authenticator knows. A ServiceAccount is not.
    pub fn may_be_in_others(&self) -> bool {
        !matches!(self, Self::ServiceAccount { .. })
    }

    /// Whether the apiserver asks RBAC about it at all.
    pub fn is_judged(&self) -> bool {
        !matches!(self, Self::Group(name) if name == MASTERS)
    }

    /// The kind of `rbac.authorization.k8s.io`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "User",
            Self::Group(_) => "Group",
            Self::ServiceAccount { .. } => "ServiceAccount",
        }
    }

    /// Its name within its kind and namespace.
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Group(name) | Self::ServiceAccount { name, .. } => name,
        }
    }

    /// The namespace of a ServiceAccount.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::ServiceAccount { namespace, .. } => Some(namespace),
            Self::User(_) | Self::Group(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind(), self.name()),
            None => write!(f, "{} {}", self.kind(), self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_in_three_groups_whatever_it_is_called_by() {
        let account = Subject::user("system:serviceaccount:a:b");
        assert_eq!(account.to_string(), "ServiceAccount a/b");
        assert_eq!(account.user_name().as_deref(), Some("system:serviceaccount:a:b"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
        assert_eq!(account.groups(), groups);
        for name in ["jane", "system:serviceaccount:a", "system:serviceaccount::b"] {
            assert_eq!(Subject::user(name), Subject::User(name.to_owned()), "{name}");
        }
    }

    #[test]
    fn members_of_a_group_are_in_the_wider_ones() {
        for (group, wider) in [
            ("devs", &["system:authenticated"][..]),
            ("system:serviceaccounts:a", &["system:serviceaccounts", "system:authenticated"]),
            ("system:serviceaccounts", &["system:authenticated"]),
            ("system:serviceaccountsish", &["system:authenticated"]),
            ("system:authenticated", &[]),
            ("system:unauthenticated", &[]),
        ] {
            assert_eq!(Subject::Group(group.to_owned()).groups(), wider, "{group}");
        }
        assert_eq!(Subject::user("system:anonymous").groups(), ["system:unauthenticated"]);
    }
}
