using NativeLora.Data;
using NativeLora.Devices;
using NativeLora.Graphs;
using NativeLora.Selection;

namespace NativeLora.Cli.Study;

/// <summary>Plans of a task's trainings, as they are trained: its longest batch, its longest row.</summary>
internal static class StudyPlans
{
    /// <param name="request">The study.</param>
    /// <param name="task">The task.</param>
    /// <param name="device">Where it is trained.</param>
    public static BudgetSelector Of(StudyRequest request, StudyTask task, Device device)
    {
        var options = request.Training(task.Settings, 0);
        var blueprint = request.Model.Blueprint(task.Setup.Labels);
        var rows = task.Examples.Train;
        var longest = rows.Max(e => e.Length);
        var order = new BatchOrder([.. rows.Select(e => e.Length)], new BatchOrderOptions
        {
            BatchSize = options.BatchTokens is null ? options.BatchSize : null,
            BatchTokens = options.BatchTokens,
            FileOrder = options.FileOrder,
        });
        var capacity = new BatchSize(order.TokenCapacity, order.SequenceCapacity, (long)order.TokenCapacity * longest);
        return new BudgetSelector(blueprint, new CostRequest
        {
            Lora = task.Lora,
            Head = task.Setup.Head,
            Capacity = capacity with { Pictures = blueprint.Model.Pictures?.Capacity(rows.Select(e => e.PictureCount), capacity) ?? 0 },
            MaxLength = longest,
            BaseDropout = options.BaseDropout,
            Device = device,
            Optimizer = options.Optimizer,
            PackWeights = options.PackWeights,
            Recompute = options.Recompute,
        });
    }
}
