using System.CommandLine;
using System.Runtime.ExceptionServices;
using System.Text.Json.Nodes;
using NativeLora.Cli.Show;
using NativeLora.Mpi;
using NativeLora.Training;

namespace NativeLora.Cli;

/// <summary>Joins the ranks that mpirun has started for a command that trains. Rank 0 alone speaks and writes.</summary>
internal static class RankRun
{
    /// <summary>
    /// mpirun gives its processes a terminal to write to, which is none: what they write goes into its own output. Nothing that is meant for
    /// a terminal may be written there, which .NET does as soon as it listens to Ctrl-C.
    /// </summary>
    public static void LeaveTerminal()
    {
        if (!Ui.IsRelayed)
            return;
        Environment.SetEnvironmentVariable("TERM", null);
        Environment.SetEnvironmentVariable("NO_COLOR", "1");
    }

    public static Option<string> Option() => new("--parallel")
    {
        Description = "auto: together with the other processes, where Open MPI's mpirun has started several; mpi: always so; off: alone",
        HelpName = "auto|mpi|off",
        DefaultValueFactory = _ => "auto",
    };

    /// <summary>Does the work, as one of several ranks if there are.</summary>
    /// <param name="parallel">The option's value.</param>
    /// <param name="work">Is given the ranks; null for this process alone.</param>
    public static int Go(string parallel, Func<RankGroup?, int> work)
    {
        if (parallel is not ("auto" or "mpi" or "off"))
            throw new InputException($"--parallel {parallel}: give auto, mpi or off");
        if (parallel == "auto" && MpiLink.OtherLauncher is { } launcher)
            throw new InputException($"{launcher} has started this process as one of several, and only Open MPI's ranks can train together; use its mpirun, or give --parallel off");
        if (parallel == "off" || parallel == "auto" && !MpiLink.IsLaunched)
            return work(null);
        using var ranks = new RankGroup(MpiLink.Join());
        if (ranks.Size == 1)
        {
            var alone = work(null);
            ranks.Close();
            return alone;
        }
        Ui.IsSilent = !ranks.Leads;
        ranks.Cancellation = Shell.Cancellation;
        try
        {
            var code = work(ranks);
            ranks.Close();
            return code;
        }
        catch (Exception e)
        {
            ExceptionDispatchInfo.Throw(ranks.Leave(e));
            throw;
        }
    }

    /// <summary>What the ranks are, and what they will send.</summary>
    public static void Show(Ui ui, RankGroup ranks, long elements) => ui.Fact(
        "ranks",
        $"{ranks.Size} on {Ui.Count(ranks.Machines, "machine")} over {ranks.Description}: {Ui.MiB(RankGroup.StepBytes(elements, ranks.Size))} a step on the wire, "
        + $"2 ({ranks.Size} − 1) × 4 bytes of {Ui.Count(elements)} gradients and a record of each rank for each other");

    /// <summary>What they sent.</summary>
    public static void Show(Ui ui, RankSummary ranks) => ui.Fact(
        "wire",
        $"{Ui.MiB(ranks.TotalBytes)} of all ranks, {Ui.MiB(ranks.StepBytes)} a step; of {ranks.ExchangeSeconds:0.00} s under way this rank waited {ranks.WaitSeconds:0.00} s");

    /// <summary>The same for <c>report.json</c>.</summary>
    public static JsonObject ToJson(RankSummary ranks) => new()
    {
        ["ranks"] = ranks.Ranks,
        ["planned_step_bytes"] = ranks.PlannedStepBytes,
        ["step_bytes"] = ranks.StepBytes,
        ["total_bytes"] = ranks.TotalBytes,
        ["other_bytes_of_this_rank"] = ranks.OtherBytes,
        ["buffer_bytes"] = ranks.BufferBytes,
        ["ranges"] = ranks.Ranges,
        ["ranges_begun_in_backward"] = Math.Round(ranks.Early, 4),
        ["ranges_hidden_by_backward"] = Math.Round(ranks.Hidden, 4),
        ["exchange_seconds"] = Math.Round(ranks.ExchangeSeconds, 4),
        ["wait_seconds"] = Math.Round(ranks.WaitSeconds, 4),
    };
}
