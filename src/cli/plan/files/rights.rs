//! Roles and bindings in files.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::de::DeserializeOwned;

use super::{
    ObjectLocation, Unread,
    object::{NamedObject, TWICE, group, malformed},
};
use crate::{
    cli::plan::objects::Objects,
    cluster::{Added, RbacObject},
    decision::websockets::rights::role::Kind,
};

/// The group of roles and bindings, and what kubectl has printed of it since 1.8.
const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// The kind of RBAC that this is.
pub(super) fn kind(version: &str, kind: &str) -> Option<Kind> {
    let found = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    found.filter(|_| group(version) == GROUP)
}

/// Takes a role or a binding.
pub(super) fn take(
    objects: &mut Objects,
    place: &ObjectLocation,
    (version, kind): (&str, Kind),
    object: NamedObject<'_>,
) -> Result<(), Unread> {
    if version != VERSION {
        return Err(object.malformed(format!("apiVersion: only {VERSION} is known")));
    }
    match kind {
        Kind::Role => add::<Role>(objects, place, object),
        Kind::ClusterRole => add::<ClusterRole>(objects, place, object),
        Kind::RoleBinding => add::<RoleBinding>(objects, place, object),
        Kind::ClusterRoleBinding => add::<ClusterRoleBinding>(objects, place, object),
    }
}

fn add<T: RbacObject + DeserializeOwned>(
    objects: &mut Objects,
    place: &ObjectLocation,
    object: NamedObject<'_>,
) -> Result<(), Unread> {
    let kind = T::KIND.as_str();
    let (name, read) = object.read::<T>()?;
    objects.rights.read.insert(T::KIND);
    let why = match read.add_to(&mut objects.rights) {
        Ok(Added::New | Added::Known) => return Ok(()),
        Ok(Added::Other) => TWICE.to_owned(),
        Err(why) => why,
    };
    Err(malformed(place, &format!("{kind} {name}"), why))
}
