using System.Text.Json.Nodes;

namespace NativeLora.Cli.Study;

/// <summary>study.json: the settings, the rows of each task, and every cell.</summary>
internal static class StudyJson
{
    public static JsonObject Of(StudyReport report) => new()
    {
        ["model"] = report.Model,
        ["seeds"] = new JsonArray([.. report.Seeds.Select(s => (JsonNode)s)]),
        ["settings"] = new JsonObject(report.Settings.Select(s => KeyValuePair.Create(s.Key, (JsonNode?)s.Value))),
        ["tasks"] = new JsonArray([.. report.Tasks.Select((t, i) => Of(t, report.Comparisons[i]))]),
        ["together"] = report.Together is { } together ? Of(together) : null,
        ["left_out"] = new JsonArray([.. report.LeftOut.Select(l => (JsonNode)new JsonObject { ["task"] = l.Task.Key, ["strategy"] = l.Row.Name, ["budget"] = l.Row.Budget?.Text, ["seed"] = l.Seed, ["reason"] = l.Reason })]),
        ["cells"] = new JsonArray([.. report.Cells.Select(c => Of(report, c))]),
    };

    private static JsonObject Of(ComparisonTable table) => new()
    {
        ["metric"] = table.Metric,
        ["comparisons"] = table.Tests,
        ["rows"] = new JsonArray([.. table.Rows.Select(c => (JsonNode)new JsonObject
        {
            ["strategy"] = c.Row.Name,
            ["ratio"] = c.Row.Ratio,
            ["budget"] = c.Row.Budget?.Text,
            ["against"] = c.Against,
            ["mean"] = c.Difference.Mean,
            ["low"] = c.Difference.Low,
            ["high"] = c.Difference.High,
            ["n"] = c.Difference.Over.Count,
            ["same_masks"] = c.SameMasks,
            ["p"] = c.P,
            ["holm"] = c.Holm,
            ["verdict"] = ComparisonWords.Word(c.Verdict),
        })]),
        ["findings"] = new JsonArray([.. ComparisonWords.Sentences(table).Select(s => (JsonNode)s)]),
    };

    private static JsonObject Of(TaskSummary task, ComparisonTable comparisons) => new()
    {
        ["task"] = task.Task.Key,
        ["metric"] = task.Task.Metric,
        ["rows"] = new JsonArray([.. task.Rows.Select(row => Of(task, row))]),
        ["against"] = Of(comparisons),
        ["findings"] = new JsonArray([.. task.Sentences.Select(s => (JsonNode)s)]),
    };

    private static JsonObject Of(TaskSummary task, RowSummary row) => new()
    {
        ["strategy"] = row.Row.Name,
        ["ratio"] = row.Row.Ratio,
        ["n"] = row.Results.Count,
        ["masks"] = new JsonArray([.. row.Cells.Select(c => (JsonNode)c.Mask)]),
        ["same_as"] = row.SameAs?.Label,
        ["trainable_parameters"] = row.Mean(r => r.TrainableParameters),
        ["trainable_percent"] = row.Mean(r => 100.0 * r.TrainableParameters / r.AllParameters),
        ["planned_bytes"] = row.Mean(r => r.PlannedBytes),
        ["optimizer_bytes"] = row.Mean(r => r.OptimizerBytes),
        ["seconds_per_step"] = row.SecondsPerStep,
        ["relative_seconds_per_step"] = row.RelativeSeconds,
        ["metrics"] = new JsonObject(task.Task.Metrics.Select(m => KeyValuePair.Create(m, row.Metrics[m] is { } value ? Of(value) : null))),
        ["versus_all"] = Of(row.VersusAll),
        ["versus_random"] = Of(row.VersusRandom),
        ["versus_last"] = Of(row.VersusLast),
        ["budget"] = row.Within is { } within ? new JsonObject { ["text"] = within.Budget.Text, [within.Budget.IsFlops ? "flops" : "bytes"] = within.Limit } : null,
        ["allocated_bytes"] = row.Mean(r => r.AllocatedBytes),
    };

    private static JsonNode? Of(Spread value) => new JsonObject { ["mean"] = value.Mean, ["std"] = value.Deviation };

    private static JsonNode? Of(Difference? difference) => difference is { } d
        ? new JsonObject { ["mean"] = d.Mean, ["std"] = d.Over.Deviation, ["low"] = d.Low, ["high"] = d.High }
        : null;

    private static JsonObject Of(StudyReport report, StudyCell cell)
    {
        var r = report.Result(cell);
        return new JsonObject
        {
            ["task"] = cell.Task.Key,
            ["strategy"] = cell.Row.Name,
            ["ratio"] = cell.Row.Ratio,
            ["seed"] = cell.Seed,
            ["mask"] = cell.Mask,
            ["same_training_as"] = report.SharedWith(cell)?.Row.Label,
            ["evaluations"] = new JsonObject(r.Evaluations.Select(e => KeyValuePair.Create(e.Split, (JsonNode?)new JsonObject(e.Values.Select(v => KeyValuePair.Create(v.Key, (JsonNode?)v.Value)))))),
            ["train_loss"] = r.TrainLoss,
            ["last_loss"] = r.LastLoss,
            ["steps"] = r.Steps,
            ["tokens"] = r.Tokens,
            ["seconds"] = r.Seconds,
            ["seconds_per_step"] = r.SecondsPerStep,
            ["trainable_parameters"] = r.TrainableParameters,
            ["all_parameters"] = r.AllParameters,
            ["planned_bytes"] = r.PlannedBytes,
            ["planned_evaluation_bytes"] = r.PlannedEvaluationBytes,
            ["optimizer_bytes"] = r.OptimizerBytes,
            ["arena_bytes"] = r.ArenaBytes,
            ["saved_bytes"] = r.SavedBytes,
            ["allocated_bytes"] = r.AllocatedBytes,
            ["peak_process_bytes"] = r.PeakProcessBytes,
            ["budget"] = cell.Within is { } within ? new JsonObject { ["text"] = within.Budget.Text, [within.Budget.IsFlops ? "flops" : "bytes"] = within.Limit, ["planned"] = within.Planned } : null,
        };
    }
}
