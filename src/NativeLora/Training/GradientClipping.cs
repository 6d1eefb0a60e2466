namespace NativeLora.Training;

/// <summary>Clipping by the global norm, as torch's clip_grad_norm_.</summary>
internal static class GradientClipping
{
    /// <summary>What gradients of this norm are multiplied by: min(1, maxNorm / (norm + 1e-6)).</summary>
    public static float Scale(double norm, double maxNorm) =>
        MathF.Min(1f, (float)maxNorm / ((float)norm + 1e-6f));
}
