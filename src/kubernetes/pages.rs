//! Lists that are asked for in pages.

use std::fmt::Debug;

use kube::{Api, api::ListParams, core::Status};
use serde::de::DeserializeOwned;

/// So many objects are asked for at once.
const PAGE: u32 = 500;

/// The code of an apiserver that no longer has the rest of a list.
const GONE: u16 = 410;

/// Lists in pages. Where the pages expire before the last one, all is asked for at once.
///
/// # Errors
/// Where the apiserver does not give the list.
pub async fn list<K>(api: &Api<K>, params: ListParams) -> kube::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut page = params.clone().limit(PAGE);
    loop {
        match api.list(&page).await {
            Ok(listed) => {
                all.extend(listed.items);
                match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => return Ok(all),
                }
            }
            Err(kube::Error::Api(status)) if expired(&status) && page.continue_token.is_some() => {
                // What the first pages held is of another moment.
                return Ok(api.list(&params).await?.items);
            }
            Err(error) => return Err(error),
        }
    }
}

fn expired(status: &Status) -> bool {
    status.code == GONE
}
