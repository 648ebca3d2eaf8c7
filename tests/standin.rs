mod compiler;
#[path = "standin/mod.rs"]
mod standin;
#[test]
fn builds() { println!("{:?} {:?}", standin::library(), standin::library_without("cuGraphLaunch")); }
