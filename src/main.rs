//! `ktrace`: records what the kernel does on the network into one bundle.
//!
//! Wires the stages together: command line → plan → preflight → capture → closing lines. Decides nothing itself.

mod audit;
mod capture;
mod cgroup;
mod cli;
mod clock;
mod command;
mod conntrack;
mod doctor;
mod error;
mod flows;
mod hooks;
mod identity;
mod kernel;
mod lifetimes;
mod memory;
mod node;
mod plan;
mod preflight;
mod processes;
mod report;
mod services;

use std::process::ExitCode;

use capture::{CaptureError, Stop, Tee};
use cli::Request;
use error::{Exit, Hint};
use plan::Plan;
use plan::looking::Looking;
use plan::naming::Choice;
use report::closing::Style;

fn main() -> ExitCode {
    memory::be_thrifty();
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => return cli::usage::report(&error).into(),
    };
    kernel::log::install();
    match request {
        Request::Check(args, origins) => match Looking::from_args(&args, &origins) {
            Ok(looking) => check(&looking),
            Err(error) => failed(&error, Exit::Usage),
        },
        Request::Hooks(about) => match report::hooks::text(&about) {
            Ok(text) if report::to_stdout(text.as_bytes()).is_ok() => Exit::Complete,
            Ok(_) => Exit::Error,
            Err(error) => failed(&error, Exit::Usage),
        },
        Request::Doctor(args, origins) => return ExitCode::from(doctor::run(&args, &origins).code()),
        Request::Look(args) => doctor::companion::run(&args),
        Request::Capture(args, origins) => match Plan::from_args(&args, &origins) {
            Ok(mut plan) => run(&mut plan),
            Err(error) => failed(&error, Exit::Usage),
        },
    }
    .into()
}

fn check(looking: &Looking) -> Exit {
    let (report, unmet) = preflight::check(looking);
    if report::to_stdout(report.render().as_bytes()).is_err() {
        return Exit::Error;
    }
    match unmet {
        None => report.exit(),
        Some(error) => failed(&error, Exit::NothingAttached),
    }
}

/// What must be right before anything is attached. What is not is told.
fn be_ready(plan: &mut Plan) -> Result<(), Exit> {
    if !plan.quiet {
        let names = std::env::vars_os().map(|(name, _)| name);
        cli::variables::strange(names).iter().for_each(error::warn);
    }
    plan.prepare().map_err(|error| failed(&error, Exit::Usage))?;
    preflight::require(plan.btf.as_deref()).map_err(|error| failed(&error, Exit::NothingAttached))?;
    plan.look_behind_nat(plan.with_conntrack != Choice::False);
    Ok(())
}

fn run(plan: &mut Plan) -> Exit {
    if let Err(exit) = be_ready(plan) {
        return exit;
    }
    let captured = Stop::on_signals().map_err(CaptureError::Signals).and_then(|stop| capture::run(plan, &stop, None));
    match captured {
        Ok(mut sealed) => {
            if let Some(leftover) = &sealed.leftover {
                error::warn(leftover);
            }
            let with_path = plan.command.is_some() || plan.stdout;
            report::closing::print(&sealed.manifest, &sealed.bundle, Style { quiet: plan.quiet, with_path });
            if let Some(Err(unread)) = sealed.tee.as_mut().map(Tee::finish) {
                error::warn(&unread);
            }
            let path = if with_path { String::new() } else { format!("{}\n", sealed.bundle.display()) };
            match report::to_stdout(path.as_bytes()) {
                Ok(()) => Exit::of(&sealed.manifest, plan.degraded_ok),
                Err(_) => Exit::Error,
            }
        }
        Err(error @ CaptureError::Load(_)) => failed(&error, Exit::NothingAttached),
        Err(error) => failed(&error, Exit::Error),
    }
}

fn failed(error: &(impl std::error::Error + Hint), exit: Exit) -> Exit {
    error::report(error);
    exit
}
