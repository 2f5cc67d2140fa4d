//! `ktrace`: records what the kernel does on the network into one bundle.
//!
//! Wires the stages together: command line → plan → capture → closing lines. Decides nothing itself.

mod cli;
mod error;
mod plan;
mod report;

use std::process::ExitCode;

use cli::Request;
use error::Exit;
use plan::{Plan, PlanError};

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => return cli::usage::report(&error).into(),
    };
    match request {
        Request::Check => Exit::NothingAttached.into(),
        Request::Capture(args, origins) => match prepared(&args, &origins) {
            Ok(_plan) => Exit::NothingAttached.into(),
            Err(error) => {
                error::report(&error);
                Exit::Usage.into()
            }
        },
    }
}

fn prepared(args: &cli::CaptureArgs, origins: &cli::Origins) -> Result<Plan, PlanError> {
    let plan = Plan::from_args(args, origins)?;
    plan.prepare()?;
    Ok(plan)
}
