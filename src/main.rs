fn main() {
    for c in sluice::api::crds() {
        println!("{}", serde_saphyr::to_string(&c.definition).unwrap());
    }
}
