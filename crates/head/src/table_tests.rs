//! What routers are told in the cases that are easily got wrong.

use mobula_proto::v1;

use crate::table::route_table;
use crate::world::Event;
use crate::world::fixtures::{V1, Version, application, config};
use crate::world::observed::ReportedState;
use crate::world::sim::{BAD_CODE, Sim};

fn deploy(sim: &mut Sim, versions: &[(&str, Version)]) {
    let apps = versions
        .iter()
        .map(|(name, version)| application(name, *version))
        .collect();
    sim.observe(Event::Deploy(Box::new(config(apps))));
}

fn cluster() -> Sim {
    let mut sim = Sim::new();
    sim.add_worker(8.0);
    sim
}

fn app<'t>(table: &'t v1::RouteTable, name: &str) -> Option<&'t v1::TableApplication> {
    table
        .applications
        .iter()
        .find(|application| application.name == name)
}

#[test]
fn a_deployment_that_gave_up_without_a_replica_is_marked_as_failed() {
    let mut sim = cluster();
    deploy(
        &mut sim,
        &[
            (
                "bad",
                Version {
                    code: BAD_CODE,
                    ..V1
                },
            ),
            ("good", V1),
        ],
    );
    sim.settle();
    let table = route_table(&sim.world);
    let (bad, good) = (app(&table, "bad").unwrap(), app(&table, "good").unwrap());
    assert!(bad.deployments[0].failed && !bad.running);
    assert!(!good.deployments[0].failed && good.running);
    assert_eq!(good.deployments[0].replicas.len(), 1);
}

#[test]
fn a_failed_rollout_leaves_the_old_replica_in_the_table() {
    let mut sim = cluster();
    deploy(&mut sim, &[("a", V1)]);
    sim.settle();
    let before = route_table(&sim.world).applications[0].deployments[0]
        .replicas
        .clone();
    deploy(
        &mut sim,
        &[(
            "a",
            Version {
                code: BAD_CODE,
                ..V1
            },
        )],
    );
    sim.settle();
    let table = route_table(&sim.world);
    assert_eq!(table.applications[0].deployments[0].replicas, before);
    assert!(!table.applications[0].deployments[0].failed);
}

#[test]
fn an_application_that_is_not_declared_any_more_has_no_route_from_that_moment() {
    let mut sim = cluster();
    deploy(&mut sim, &[("a", V1), ("b", V1)]);
    sim.settle();
    deploy(&mut sim, &[("b", V1)]);
    let table = route_table(&sim.world);
    assert!(app(&table, "a").is_none() && app(&table, "b").is_some());
    assert!(
        sim.world.applications.contains_key("a"),
        "its replicas still finish"
    );
}

#[test]
fn of_well_and_unwell_replicas_only_the_well_ones_are_routed_to() {
    let mut sim = cluster();
    deploy(&mut sim, &[("app", Version { target: 2, ..V1 })]);
    sim.settle();
    sim.afflict("worker1", 0, ReportedState::Unhealthy);
    sim.report("worker1");
    let table = route_table(&sim.world);
    assert_eq!(table.applications[0].deployments[0].replicas.len(), 1);
}

#[test]
fn routers_are_named_where_they_share_a_limit_and_only_there() {
    let mut sim = cluster();
    let mut routers = vec![sim.add_router(), sim.add_router()];
    deploy(&mut sim, &[("a", V1)]);
    sim.settle();
    let version = sim.world.published.table_version();
    assert_eq!(route_table(&sim.world).routers, Vec::<String>::new());
    routers.push(sim.add_router());
    sim.settle();
    assert_eq!(sim.world.published.table_version(), version, "no new table");

    let id = sim.world.deployments().next().unwrap().0;
    let deployment = sim.world.deployment_mut(&id).unwrap();
    deployment.spec.max_queued_requests = 0;
    sim.settle();
    routers.sort();
    assert_eq!(sim.world.published.table().unwrap().routers, routers);
    sim.kill(&routers.remove(0));
    sim.settle();
    assert_eq!(sim.world.published.table().unwrap().routers, routers);
}
