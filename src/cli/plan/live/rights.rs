//! Roles and bindings of a cluster, and what its apiserver says of those who seem to lack a right.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
};
use serde::de::DeserializeOwned;

use crate::{
    cli::{explain::how_to_get_rights, plan::objects::Objects},
    cluster::RbacObject,
    decision::websockets::rights::{
        Confirmed, Rbac,
        finding::{Concern, Finding, findings},
        rule::{Names, Subresource, Verb},
    },
    kubernetes::{failure::Failure, pages::list},
};

/// So many findings are asked about, and each by so many questions.
const REVIEWED: usize = 10;

/// Reads all four kinds. A kind that cannot be read is left out, with the reason.
pub(super) async fn read(client: &Client, objects: &mut Objects) {
    objects.rights = Rbac { whole: true, ..Rbac::default() };
    // The bindings first: a role that is missing afterwards was there at no moment since.
    read_kind::<ClusterRoleBinding>(client, objects).await;
    read_kind::<RoleBinding>(client, objects).await;
    read_kind::<ClusterRole>(client, objects).await;
    read_kind::<Role>(client, objects).await;
}

async fn read_kind<T>(client: &Client, objects: &mut Objects)
where
    T: RbacObject + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let rbac = &mut objects.rights;
    let refused = match list(&Api::<T>::all(client.clone()), ListParams::default()).await {
        Ok(objects) => {
            let added: Result<Vec<_>, _> =
                objects.into_iter().map(|object| object.add_to(rbac)).collect();
            added.err()
        }
        Err(error) => {
            let failure = Failure::of(&error);
            if let Failure::Forbidden { who, .. } = &failure {
                objects.hint.get_or_insert_with(|| how_to_get_rights(who.as_deref()));
            }
            Some(failure.to_string())
        }
    };
    match refused {
        None => {
            rbac.read.insert(T::KIND);
        }
        Some(why) => {
            rbac.refused.insert(T::KIND, why);
        }
    }
}

/// Asks the apiserver about those who would be told to lack `create`: another authorizer may give
/// it. Returns what it said, in a word.
pub(super) async fn review(client: &Client, rbac: &mut Rbac) -> Option<String> {
    let blocking: Vec<Finding> =
        findings(rbac).into_iter().filter(|finding| finding.concern == Concern::Blocks).collect();
    if blocking.is_empty() {
        return None;
    }
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let (mut asked, mut healed) = (0, BTreeSet::new());
    for finding in blocking.iter().filter(|f| f.subject.user_name().is_some()).take(REVIEWED) {
        let questions: Vec<(Subresource, Option<&String>)> = finding
            .lacks
            .iter()
            .flat_map(|(subresource, names)| match names {
                Names::All => vec![(*subresource, None)],
                Names::Only(names) => names.iter().map(|name| (*subresource, Some(name))).collect(),
            })
            .take(REVIEWED)
            .collect();
        for (subresource, name) in questions {
            let review = question(finding, subresource, name);
            match reviews.create(&PostParams::default(), &review).await {
                Ok(answer) => {
                    asked += 1;
                    if answer.status.is_some_and(|status| status.allowed) {
                        healed.insert(finding.subject.to_string());
                        rbac.confirmed.push(confirmed(finding, subresource, name));
                    }
                }
                Err(error) => {
                    return Some(format!(
                        "whether another authorizer gives create cannot be asked: {}",
                        Failure::of(&error)
                    ));
                }
            }
        }
    }
    let healed: Vec<String> = healed.into_iter().collect();
    Some(match healed.as_slice() {
        [] => format!("asked the apiserver {asked} times about create: RBAC says all of it"),
        some => format!(
            "asked the apiserver {asked} times about create: another authorizer gives it to {}",
            some.join(", ")
        ),
    })
}

fn question(
    finding: &Finding,
    subresource: Subresource,
    name: Option<&String>,
) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        namespace: finding.binding.scope.namespace().map(str::to_owned),
        verb: Some(Verb::Create.as_str().to_owned()),
        resource: Some("pods".to_owned()),
        subresource: Some(subresource.as_str().to_owned()),
        name: name.cloned(),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: finding.subject.user_name(),
        groups: Some(finding.subject.groups()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

fn confirmed(finding: &Finding, subresource: Subresource, name: Option<&String>) -> Confirmed {
    Confirmed {
        subject: finding.subject.clone(),
        subresource,
        scope: finding.binding.scope.clone(),
        names: name.map_or(Names::All, |name| Names::Only([name.clone()].into())),
    }
}
